package org.lotse.spring;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** The service over HTTP, by connections that are kept open. It knows nothing of deadlines and of trying again. */
final class Collector {
    /** An answer that has not come then is taken for lost. */
    static final Duration LOST = Duration.ofSeconds(2);

    private static final Duration CONNECT = Duration.ofSeconds(1);
    private static final int WARM = 50;
    private final HttpClient http = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(CONNECT)
            .followRedirects(HttpClient.Redirect.NEVER)
            .build();
    private final ObjectMapper json = new ObjectMapper();
    private final LotseProperties properties;
    private final URI scored;
    private final URI folded;
    private final URI erased;

    Collector(LotseProperties properties) {
        this.properties = properties;
        String events = properties.url() + "/v1/events";
        String flags = properties.flags();
        scored = URI.create("none".equals(flags) ? events : events + "?flags=" + flags.replaceAll("\\s", ""));
        folded = URI.create(events + "?scores=none");
        erased = URI.create(properties.url() + "/v1/visitors/erase");
    }

    /**
     * One event, for its session's scores and flags.
     *
     * @param signals headers by which the browser objects to being linked
     * @return fails with a {@link Refusal}, or with what kept the answer away
     */
    CompletableFuture<Answer> score(Event event, Map<String, String> signals) {
        HttpRequest.Builder request = post(scored, event.wire()).timeout(LOST);
        signals.forEach(request::header);
        return http.sendAsync(request.build(), BodyHandlers.ofByteArray()).thenApply(response -> {
            check(response);
            try {
                return json.readValue(response.body(), Answer.class);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        });
    }

    /**
     * Events for which nobody waits, in their order.
     *
     * @throws Refusal the service does not take them
     * @throws IOException nothing was answered: it may have taken them
     */
    void deliver(List<Event> events) throws IOException, InterruptedException {
        HttpRequest request =
                post(folded, events.stream().map(Event::wire).toList()).timeout(LOST.multipliedBy(5)).build();
        check(http.send(request, BodyHandlers.ofByteArray()));
    }

    /**
     * Has everything erased that is held of a visitor.
     *
     * @throws Refusal the service does not do it; also if nothing is held
     * @throws IOException nothing was answered
     */
    void erase(String visitor) throws IOException, InterruptedException {
        HttpRequest request = post(erased, Map.of("visitor", visitor)).timeout(LOST.multipliedBy(5)).build();
        check(http.send(request, BodyHandlers.ofByteArray()));
    }

    /** Opens a connection and has the code loaded and compiled, for which the first pages would have to wait. */
    CompletableFuture<Void> warmUp() {
        HttpRequest request = HttpRequest.newBuilder(URI.create(properties.url() + "/livez")).timeout(LOST).build();
        CompletableFuture<Void> done = CompletableFuture.completedFuture(null);
        for (int times = 0; times < WARM; times++) {
            done = done.thenCompose(before -> http.sendAsync(request, BodyHandlers.ofByteArray()))
                    .thenAccept(answer -> post(scored, Event.of("page_view", Map.of(), Map.of()).wire()));
        }
        return done;
    }

    private HttpRequest.Builder post(URI address, Object content) {
        HttpRequest.Builder request = HttpRequest.newBuilder(address).header("Content-Type", "application/json");
        if (!properties.key().isEmpty()) {
            request.header("Authorization", "Bearer " + properties.key());
        }
        try {
            return request.POST(BodyPublishers.ofByteArray(json.writeValueAsBytes(content)));
        } catch (JsonProcessingException error) {
            throw new UncheckedIOException(error);
        }
    }

    private void check(HttpResponse<byte[]> response) {
        int status = response.statusCode();
        if (status != 200) {
            throw new Refusal(status, problem(response.body()), after(response));
        }
    }

    private Refusal.Problem problem(byte[] body) {
        try {
            return json.readValue(body, Refusal.Problem.class);
        } catch (IOException error) {
            return Refusal.Problem.UNKNOWN; // a proxy's page
        }
    }

    private static Duration after(HttpResponse<byte[]> response) {
        String told = response.headers().firstValue("Retry-After").orElse("");
        return told.matches("\\d{1,4}") ? Duration.ofSeconds(Long.parseLong(told)) : Duration.ZERO;
    }
}
