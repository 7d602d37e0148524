package org.lotse.spring;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * The session of the visitor of a request, as the service sees it with this page: a parameter of controllers, and the
 * request's attribute {@code lotse} for views.
 *
 * <p>The page's event is under way when a controller begins. Who asks for scores waits for the answer, all in all at most
 * {@code lotse.timeout-ms}; who does not ask does not wait. Nothing here throws.
 */
public final class LotseSession {
    /** Name of the request's attribute. */
    public static final String ATTRIBUTE = "lotse";

    private final Sender sender;
    private final Map<String, Object> origin;
    private final Map<String, Object> place;
    private final boolean page;
    private final Runnable begins;
    private final Runnable ends;
    private final Map<String, String> signals;
    private final Reason without;
    private final Waiting waiting;
    private CompletableFuture<Answer> sent;
    private boolean skipped;
    private Answer answer;
    private Reason reason;

    private LotseSession(Builder builder) {
        sender = builder.sender;
        origin = builder.origin;
        place = builder.place;
        page = builder.page;
        begins = builder.begins;
        ends = builder.ends;
        signals = builder.signals;
        without = builder.without;
        waiting = new Waiting(builder.timeoutMs);
    }

    /** Scores by head, such as {@code conversion}; empty if there are none, see {@link #reason}. */
    public Map<String, Double> scores() {
        return answer().scores();
    }

    /** The score of one head. */
    public OptionalDouble score(String head) {
        Double score = answer().scores().get(head);
        return score == null ? OptionalDouble.empty() : OptionalDouble.of(score);
    }

    /** Flags that came with the page; empty if there are none. */
    public Map<String, Flag> flags() {
        return answer().flags();
    }

    /** A flag's value; the default if it is not there, or of another kind than the default. */
    public <T> T flag(String key, T byDefault) {
        Flag flag = answer().flags().get(key);
        return flag == null ? byDefault : flag.or(byDefault);
    }

    /** The session's token, the right to see it; empty without an answer. */
    public String session() {
        return answer().session();
    }

    /** Why scores and flags are what they are. */
    public Reason reason() {
        answer();
        return reason;
    }

    /** Why the service's scores know less than they should, in its words such as {@code store_unreachable}; usually empty. */
    public String degraded() {
        return answer().reason();
    }

    /** Something happened beside the page: sent behind its event, in the background. */
    public void track(String name) {
        track(name, Details.none());
    }

    /**
     * Something happened beside the page: sent behind its event, in the background.
     *
     * @param name one of the vocabulary, such as {@code add_to_cart}, or one that {@code configs/shop.toml} maps
     */
    public void track(String name, Details details) {
        if (sender != null && name != null) {
            Event event = Event.of(name, origin, details == null ? Map.of() : details.fields());
            sender.add(event);
        }
    }

    /** How long this request has waited for the service so far, in milliseconds. */
    public double waitedMs() {
        return waiting.waitedMs();
    }

    /** Whether it is of a request that the service may be told of. */
    boolean isMeasured() {
        return sender != null;
    }

    Waiting waiting() {
        return waiting;
    }

    /** Who it is for OpenFeature: the token, or without one the id by which a secret key may name the visitor. */
    String target() {
        String token = session();
        return token.isEmpty() && reason == Reason.NO_EVENT ? String.valueOf(origin.get("visitor")) : token;
    }

    /** Have the page's event sent, unless that was done. */
    synchronized void begin(String name, Details details) {
        if (sender == null || !page || skipped || sent != null) {
            return;
        }
        begins.run();
        Map<String, Object> all = new LinkedHashMap<>(place);
        all.putAll(details.fields());
        sent = sender.send(Event.of(name, origin, all), signals);
    }

    /** The request has been answered. */
    void ends() {
        ends.run();
    }

    /** This page has no event. */
    synchronized void skip() {
        skipped = true;
    }

    private synchronized Answer answer() {
        if (answer == null) {
            begin("page_view", Details.none());
            wait(sent);
        }
        return answer;
    }

    private void wait(CompletableFuture<Answer> asked) {
        Answer found = Answer.NONE;
        if (asked == null) {
            reason = without;
        } else {
            long begin = System.nanoTime();
            try {
                found = asked.get(waiting.left(), TimeUnit.NANOSECONDS);
                reason = Reason.OK;
            } catch (TimeoutException error) {
                reason = Reason.TIMEOUT;
            } catch (ExecutionException | CompletionException error) {
                reason = Sender.reason(error.getCause());
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                reason = Reason.TIMEOUT;
            }
            waiting.waited(System.nanoTime() - begin);
        }
        answer = found;
    }

    /** Of a request of which the service is told nothing. */
    static LotseSession without(Reason reason) {
        Builder builder = new Builder();
        builder.without = reason;
        return builder.build();
    }

    /** What is known of a request. */
    static final class Builder {
        private final Map<String, Object> origin = new LinkedHashMap<>();
        private final Map<String, Object> place = new LinkedHashMap<>();
        private Sender sender;
        private boolean page;
        private Runnable begins = () -> {};
        private Runnable ends = () -> {};
        private Map<String, String> signals = Map.of();
        private Reason without = Reason.NO_EVENT;
        private int timeoutMs;

        Builder sender(Sender sender, int timeoutMs) {
            this.sender = sender;
            this.timeoutMs = timeoutMs;
            return this;
        }

        /** signals: headers by which the browser objects to being linked. */
        Builder visitor(String id, Set<Purpose> consent, String device, Map<String, String> signals) {
            origin.put("visitor", id);
            origin.put("consent", consent);
            origin.put("device", device);
            this.signals = signals;
            return this;
        }

        /** The page that is opened, as of {@link Addresses}. */
        Builder page(String address, String referrer) {
            origin.put("page", address);
            place.put("referrer", referrer);
            page = true;
            return this;
        }

        /** What else is done when the page's event is sent. */
        Builder begins(Runnable begins) {
            this.begins = begins;
            return this;
        }

        /** What is done when the request has been answered. */
        Builder ends(Runnable ends) {
            this.ends = ends;
            return this;
        }

        LotseSession build() {
            return new LotseSession(this);
        }
    }
}
