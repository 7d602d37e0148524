package org.lotse.spring;

import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig.SlidingWindowType;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A page's event on its way: sent at once, counted by the circuit breaker as late after {@code lotse.timeout-ms}, and put
 * into the {@link Outbox} if it failed.
 *
 * <p>A late request is not given up: it comes to its end for itself, so most late events need not be sent again.
 */
final class Sender {
    private static final Logger LOG = LoggerFactory.getLogger(Sender.class);
    private final Collector collector;
    private final Outbox outbox;
    private final Counts counts;
    private final int timeoutMs;
    private final CircuitBreaker breaker;
    private final Told told = new Told(LOG);

    Sender(Collector collector, Outbox outbox, Counts counts, LotseProperties properties) {
        this.collector = collector;
        this.outbox = outbox;
        this.counts = counts;
        this.timeoutMs = properties.timeoutMs();
        int failures = properties.circuit().failures();
        this.breaker = CircuitBreaker.of("lotse", CircuitBreakerConfig.custom()
                .slidingWindow(failures, failures, SlidingWindowType.COUNT_BASED)
                .failureRateThreshold(100)
                .waitDurationInOpenState(Duration.ofMillis(properties.circuit().openMs()))
                .permittedNumberOfCallsInHalfOpenState(1)
                .build());
        breaker.getEventPublisher().onStateTransition(event -> {
            if (event.getStateTransition().getToState() == CircuitBreaker.State.CLOSED) {
                outbox.tryNow();
            }
        });
    }

    /** Who is asked whether to wait. */
    CircuitBreaker breaker() {
        return breaker;
    }

    /**
     * Send a page's event now.
     *
     * @param signals headers by which the browser objects to being linked
     * @return the answer; failed with a {@link Refusal} or what kept it away when the event is where it will be sent again
     */
    CompletableFuture<Answer> send(Event event, Map<String, String> signals) {
        if (outbox.mustWait(event.visitor()) || !breaker.tryAcquirePermission()) {
            outbox.add(event);
            counts.pages(Reason.UNAVAILABLE).increment();
            return CompletableFuture.failedFuture(new IllegalStateException("nobody waits for the service now"));
        }
        outbox.begin(event);
        long begin = System.nanoTime();
        CompletableFuture<Answer> asked = ask(event, signals);
        asked.copy().orTimeout(timeoutMs, TimeUnit.MILLISECONDS).whenComplete((answer, error) -> judge(begin, error));
        return asked.whenComplete((answer, error) -> settle(event, error));
    }

    /** What happens beside a page's event, in the queue behind it. */
    void add(Event event) {
        outbox.add(event);
    }

    /** Visits of this visitor are not to be linked any more. */
    void withdraw(String visitor) {
        outbox.withdraw(visitor);
    }

    /** Why somebody who waited has no answer. */
    static Reason reason(Throwable error) {
        Throwable cause = cause(error);
        if (cause instanceof TimeoutException) {
            return Reason.TIMEOUT;
        }
        return cause instanceof Refusal refusal && !refusal.passes() ? Reason.REFUSED : Reason.UNAVAILABLE;
    }

    private CompletableFuture<Answer> ask(Event event, Map<String, String> signals) {
        try {
            return collector.score(event, signals);
        } catch (RuntimeException error) {
            return CompletableFuture.failedFuture(error);
        }
    }

    private void judge(long begin, Throwable error) {
        long took = System.nanoTime() - begin;
        Reason reason = error == null ? Reason.OK : reason(error);
        counts.pages(reason).increment();
        if (reason == Reason.OK || reason == Reason.REFUSED) {
            breaker.onSuccess(took, TimeUnit.NANOSECONDS);
            counts.answers.increment();
            counts.nanoseconds.add(took);
        } else {
            breaker.onError(took, TimeUnit.NANOSECONDS, cause(error));
        }
    }

    private void settle(Event event, Throwable error) {
        if (error == null) {
            outbox.answered(event);
            return;
        }
        if (reason(error) == Reason.REFUSED) {
            told.warn("a page's event is refused: {}", cause(error).getMessage());
        }
        // a refused one, too: it may be the flags that were asked for, and in the queue none are
        outbox.failed(event);
    }

    private static Throwable cause(Throwable error) {
        return error instanceof CompletionException && error.getCause() != null ? error.getCause() : error;
    }
}
