package org.lotse.spring;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Events that nobody waits for, and a service that does not take them. */
class OutboxTest {
    private final Counts counts = new Counts();
    private FaultyService service;
    private Outbox outbox;

    @BeforeEach
    void start() throws IOException {
        service = new FaultyService();
        LotseProperties settings = Settings.of(service.url(), 30, 100);
        outbox = new Outbox(new Collector(settings), settings, counts);
    }

    @AfterEach
    void stop() {
        outbox.close();
        service.close();
    }

    @Test
    void whatIsRefusedForAWhileComesAgainInItsOrderWithTheSameIds() {
        service.next(FaultyService.status(503, "{}"), FaultyService.status(500, "a proxy's page"));
        List<String> ids = added(120);
        until(() -> counts.delivered.sum() == 100);
        assertThat(service.ids.subList(service.ids.size() - 100, service.ids.size())).isEqualTo(ids.subList(0, 100));
        assertThat(service.ids).hasSizeGreaterThan(100);
        assertThat(counts.dropped.sum()).isEqualTo(20);
        assertThat(service.requests.get(0)).startsWith("/v1/events?scores=none ").contains("\"sent_at\":");
    }

    @Test
    void theServiceSaysWhenToComeAgain() {
        service.next(FaultyService.status(429, "{}", "Retry-After", "1"));
        long begin = System.nanoTime();
        added(1);
        until(() -> counts.delivered.sum() == 1);
        assertThat(Duration.ofNanos(System.nanoTime() - begin)).isGreaterThanOrEqualTo(Duration.ofSeconds(1));
    }

    @Test
    void oneBadEventGoesAndTheOthersComeAgain() {
        // the first goes alone; the others have come together by the time it is answered
        service.next(exchange -> {
            TimeUnit.MILLISECONDS.sleep(200);
            FaultyService.FINE.answer(exchange);
        });
        String fault = "{\"detail\": \"2 events\", \"errors\": [{\"index\": 1, \"field\": \"name\"}, {\"index\": 3, \"field\": \"price\"}]}";
        service.next(FaultyService.status(422, fault));
        outbox.add(Event.of("page_view", Map.of(), Map.of()));
        until(() -> service.requests.size() == 1);
        List<String> ids = added(5);
        until(() -> counts.delivered.sum() == 4);
        assertThat(counts.refused.sum()).isEqualTo(2);
        assertThat(service.ids.subList(service.ids.size() - 3, service.ids.size()))
                .containsExactly(ids.get(0), ids.get(2), ids.get(4));
    }

    @Test
    void whatWaitsIsSentAtTheEnd() {
        service.next(FaultyService.status(503, "{}", "Retry-After", "60"));
        added(3);
        until(() -> service.requests.size() == 1);
        outbox.close();
        assertThat(counts.delivered.sum()).isEqualTo(3);
        outbox.add(Event.of("page_view", Map.of(), Map.of()));
        assertThat(counts.dropped.sum()).isEqualTo(1);
    }

    @Test
    void aRefusalThatComesWithTheEndIsNotWaitedOut() {
        service.next(exchange -> {
            TimeUnit.MILLISECONDS.sleep(300);
            FaultyService.status(503, "{}", "Retry-After", "60").answer(exchange);
        });
        added(3);
        until(() -> service.requests.size() == 1);
        outbox.close();
        assertThat(counts.delivered.sum()).isEqualTo(3);
    }

    @Test
    void theEndWaitsForAPageThatIsOnItsWay() {
        Event event = of("anna");
        outbox.begin(event);
        Thread page = new Thread(() -> {
            sleep(300);
            outbox.failed(event);
        });
        page.start();
        outbox.close();
        assertThat(counts.delivered.sum()).isEqualTo(1);
    }

    @Test
    void anEndWithoutTheServiceIsOverInTime() {
        service.close();
        added(3);
        long begin = System.nanoTime();
        outbox.close();
        assertThat(Duration.ofNanos(System.nanoTime() - begin)).isLessThan(Duration.ofSeconds(3));
        assertThat(counts.dropped.sum()).isEqualTo(3);
    }

    @Test
    void aVisitorsEventsKeepTheirOrderBehindAPageThatIsOnItsWay() {
        Event first = of("anna");
        Event second = of("anna");
        Event other = of("ben");
        outbox.begin(first);
        outbox.add(second);
        outbox.add(other);
        until(() -> counts.delivered.sum() == 1);
        assertThat(service.ids).containsExactly(other.id());
        outbox.failed(first);
        until(() -> counts.delivered.sum() == 3);
        assertThat(service.ids).containsExactly(other.id(), first.id(), second.id());
    }

    @Test
    void aPageWaitsForEventsOfItsVisitorThatMayHaveArrivedOrAreMany() {
        service.always(FaultyService.status(503, "{}"));
        Event late = of("anna");
        outbox.begin(late);
        assertThat(outbox.mustWait("anna")).isFalse();
        until(() -> outbox.mustWait("anna")); // it is 30 ms late
        outbox.answered(late);
        assertThat(outbox.mustWait("anna")).isFalse();

        Event failed = of("anna");
        outbox.begin(failed);
        outbox.failed(failed);
        assertThat(outbox.mustWait("anna")).isTrue();

        assertThat(outbox.mustWait("ben")).isFalse();
        List<Event> several = IntStream.range(0, 7).mapToObj(number -> of("ben")).toList();
        several.forEach(outbox::begin);
        assertThat(outbox.mustWait("ben")).isTrue();
        several.forEach(outbox::answered);
        assertThat(outbox.mustWait("ben")).isFalse();

        service.always(FaultyService.FINE);
        until(() -> !outbox.mustWait("anna"));
    }

    @Test
    void aWithdrawalFollowsThePageThatIsOnItsWayAndNothingIsSentAfterIt() {
        Event answered = of("anna");
        Event failed = of("anna");
        outbox.begin(answered);
        outbox.begin(failed);
        outbox.withdraw("anna");
        outbox.add(of("ben"));
        until(() -> counts.delivered.sum() == 1);
        assertThat(service.requests).noneMatch(request -> request.contains("erase"));
        outbox.answered(answered);
        outbox.failed(failed);
        until(() -> service.requests.size() == 2);
        assertThat(service.requests.get(1)).startsWith("/v1/visitors/erase ").contains("anna");
        outbox.close();
        assertThat(service.requests).hasSize(2);
        assertThat(counts.dropped.sum()).isZero();
    }

    private static Event of(String visitor) {
        return Event.of("page_view", Map.of("visitor", visitor), Map.of());
    }

    private List<String> added(int some) {
        List<Event> events = IntStream.range(0, some).mapToObj(number -> Event.of("page_view", Map.of(), Map.of())).toList();
        events.forEach(outbox::add);
        return events.stream().map(Event::id).toList();
    }

    static void until(BooleanSupplier condition) {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (!condition.getAsBoolean()) {
            assertThat(System.nanoTime()).as("it did not come true").isLessThan(end);
            sleep(10);
        }
    }

    private static void sleep(int milliseconds) {
        try {
            TimeUnit.MILLISECONDS.sleep(milliseconds);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
