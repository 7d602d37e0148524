package org.lotse.spring;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * What the real service cannot be made to do at a test's word: refusals in a given order, answers that trickle. Everything
 * that it can do is tested with itself, by tests/clients/test_spring.py.
 */
final class FaultyService implements AutoCloseable {
    /** The next answer. */
    interface Fault {
        void answer(HttpExchange exchange) throws IOException, InterruptedException;
    }

    static final Fault FINE = exchange -> reply(exchange, 200, "{\"session\": \"token\", \"status\": \"folded\", \"events\": 1}");

    final List<String> requests = new CopyOnWriteArrayList<>();
    final List<String> ids = new CopyOnWriteArrayList<>();
    private final Queue<Fault> faults = new ConcurrentLinkedQueue<>();
    private final ObjectMapper json = new ObjectMapper();
    private final HttpServer server;
    private volatile Fault otherwise = FINE;

    FaultyService() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", this::handle);
        server.start();
    }

    String url() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    /** What the next requests are answered with, one each. */
    FaultyService next(Fault... some) {
        faults.addAll(List.of(some));
        return this;
    }

    /** What all others are answered with. */
    FaultyService always(Fault fault) {
        otherwise = fault;
        return this;
    }

    static Fault status(int status, String body, String... header) {
        return exchange -> {
            if (header.length == 2) {
                exchange.getResponseHeaders().add(header[0], header[1]);
            }
            reply(exchange, status, body);
        };
    }

    /** Headers at once, then a byte every few milliseconds: no time-out between two bytes ever passes. */
    static Fault trickle() {
        return exchange -> {
            exchange.sendResponseHeaders(200, 0);
            for (int sent = 0; sent < 400; sent++) {
                exchange.getResponseBody().write(' ');
                exchange.getResponseBody().flush();
                TimeUnit.MILLISECONDS.sleep(5);
            }
            exchange.close();
        };
    }

    private void handle(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        if (body.length > 0) {
            JsonNode content = json.readTree(body);
            requests.add(exchange.getRequestURI() + " " + content);
            content.findValuesAsText("id").forEach(ids::add);
        }
        Fault fault = faults.poll();
        try {
            (fault == null ? otherwise : fault).answer(exchange);
        } catch (IOException error) {
            exchange.close(); // the client has given up
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private static void reply(HttpExchange exchange, int status, String body) {
        try (exchange) {
            byte[] bytes = body.getBytes();
            exchange.sendResponseHeaders(status, bytes.length);
            exchange.getResponseBody().write(bytes);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public void close() {
        server.stop(0);
    }
}
