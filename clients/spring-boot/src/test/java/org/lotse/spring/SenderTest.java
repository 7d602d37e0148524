package org.lotse.spring;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.net.httpserver.HttpExchange;
import io.github.resilience4j.circuitbreaker.CircuitBreaker.State;
import java.io.IOException;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A page that asks, and a service that is slow or away: how long the page waits, and that its event is not lost. */
class SenderTest {
    private static final double SLACK_MS = 500; // of a machine that does other things, too
    private final Counts counts = new Counts();
    private FaultyService service;
    private LotseProperties properties;
    private Outbox outbox;
    private Sender sender;

    @BeforeEach
    void start() throws IOException {
        service = new FaultyService();
        waitFor(2_000);
    }

    /** How long a page may wait: as long as it takes where it is about something else. */
    private void waitFor(int timeoutMs) {
        if (outbox != null) {
            outbox.close();
        }
        properties = Settings.of(service.url(), timeoutMs);
        Collector collector = new Collector(properties);
        collector.warmUp().join();
        outbox = new Outbox(collector, properties, counts);
        sender = new Sender(collector, outbox, counts, properties);
    }

    @AfterEach
    void stop() {
        service.close();
        outbox.close();
    }

    @Test
    void anAnswerThatTricklesIsWaitedForNoLonger() {
        waitFor(30);
        service.always(FaultyService.trickle());
        for (int page = 0; page < 5; page++) {
            LotseSession session = session("anna" + page);
            assertThat(session.reason()).isEqualTo(Reason.TIMEOUT);
            assertThat(session.scores()).isEmpty();
            assertThat(session.flag("banner", true)).isTrue();
            assertThat(session.waitedMs()).isBetween(29.0, 30 + SLACK_MS);
        }
        // and after five of them nobody waits at all
        OutboxTest.until(() -> sender.breaker().getState() == State.OPEN);
        LotseSession session = session();
        assertThat(session.reason()).isEqualTo(Reason.UNAVAILABLE);
        assertThat(session.waitedMs()).isLessThan(10);
        assertThat(counts.pages(Reason.TIMEOUT).sum()).isEqualTo(5);
    }

    @Test
    void oneTriesAfterAWhileAndThenAllDo() throws InterruptedException {
        service.always(FaultyService.status(503, "{}"));
        for (int page = 0; page < 5; page++) {
            assertThat(session("anna" + page).reason()).isEqualTo(Reason.UNAVAILABLE);
        }
        assertThat(sender.breaker().getState()).isEqualTo(State.OPEN);
        service.always(FaultyService.FINE);
        Thread.sleep(1_100);
        assertThat(session().reason()).isEqualTo(Reason.OK);
        assertThat(sender.breaker().getState()).isEqualTo(State.CLOSED);
        OutboxTest.until(() -> counts.delivered.sum() == 6);
        assertThat(Set.copyOf(service.ids)).hasSize(6);
    }

    @Test
    void whatHappensBesideAPageIsSentBehindItAlsoIfThePageFailed() {
        service.next(FaultyService.status(500, ""));
        LotseSession session = session();
        session.begin("view_item", Details.ofItem("A"));
        session.track("add_to_cart", Details.ofItem("A").price(5));
        OutboxTest.until(() -> counts.delivered.sum() == 2);
        assertThat(service.requests.get(0)).contains("view_item").contains("\"referrer\":\"https://search.example\"");
        String queued = String.join("\n", service.requests.subList(1, service.requests.size()));
        assertThat(queued.indexOf("view_item")).isBetween(0, queued.indexOf("add_to_cart"));
        assertThat(queued).contains("\"consent\":[\"link\"]", "\"device\":\"desktop\"", "\"price\":5.0");
        assertThat(Set.copyOf(service.ids)).hasSize(2);
    }

    @Test
    void flagsThatTheServiceDoesNotKnowDoNotLoseTheEvent() {
        service.next(FaultyService.status(422, "{\"detail\": \"query parameter flags: found 'old'\"}"));
        assertThat(session().reason()).isEqualTo(Reason.REFUSED);
        OutboxTest.until(() -> counts.delivered.sum() == 1);
        assertThat(sender.breaker().getState()).isEqualTo(State.CLOSED);
    }

    @Test
    void aLateAnswerIsTakenByAPageThatWasBusyItself() throws InterruptedException {
        waitFor(30);
        service.always(exchange -> {
            Thread.sleep(60);
            FaultyService.FINE.answer(exchange);
        });
        LotseSession session = session();
        session.begin("page_view", Details.none());
        OutboxTest.until(() -> counts.delivered.sum() == 1);
        Thread.sleep(100); // the answer is the page's right after it is counted
        assertThat(session.session()).isEqualTo("token");
        assertThat(session.waitedMs()).isLessThan(10);
    }

    @Test
    void nobodyIsToldAnythingOfARequestWithoutASender() {
        LotseSession session = LotseSession.without(Reason.OFF);
        session.track("purchase", Details.ofValue(1));
        assertThat(session.reason()).isEqualTo(Reason.OFF);
        assertThat(session.flag("banner", "default")).isEqualTo("default");
        assertThat(service.requests).isEmpty();
    }

    @Test
    void anEventWhoseAnswerIsLostComesAgainBeforeAnyOtherOfItsVisitor() {
        // the service has taken it: it would not know it again after seven others
        service.next(HttpExchange::close);
        service.next(FaultyService.status(503, "{}"), FaultyService.status(503, "{}"));
        LotseSession first = session();
        assertThat(first.reason()).isEqualTo(Reason.UNAVAILABLE);
        for (int page = 0; page < 8; page++) {
            assertThat(session().reason()).isEqualTo(Reason.UNAVAILABLE);
        }
        OutboxTest.until(() -> outbox.size() == 0);
        String lost = service.ids.get(0);
        assertThat(service.ids.get(1)).isEqualTo(lost);
        assertThat(Set.copyOf(service.ids)).hasSize(9);
        assertThat(counts.delivered.sum()).isEqualTo(9);
        assertThat(session().reason()).isEqualTo(Reason.OK);
    }

    private LotseSession session() {
        return session("anna");
    }

    private LotseSession session(String visitor) {
        return new LotseSession.Builder()
                .sender(sender, properties.timeoutMs())
                .visitor(visitor, Set.of(Purpose.LINK), "desktop", Map.of())
                .page("https://shop.example/", "https://search.example")
                .build();
    }
}
