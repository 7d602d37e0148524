package org.lotse.spring;

import com.google.common.collect.ImmutableList;
import com.google.common.collect.ImmutableMap;
import dev.openfeature.contrib.providers.ofrep.OfrepProvider;
import dev.openfeature.contrib.providers.ofrep.OfrepProviderOptions;
import dev.openfeature.sdk.ErrorCode;
import dev.openfeature.sdk.EvaluationContext;
import dev.openfeature.sdk.FeatureProvider;
import dev.openfeature.sdk.Metadata;
import dev.openfeature.sdk.ProviderEvaluation;
import dev.openfeature.sdk.Value;
import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import java.net.URI;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import java.util.function.Supplier;
import org.apache.commons.validator.routines.DomainValidator;

/**
 * OpenFeature's provider: flags that came with the page at once, all others over OFREP within what the request may still
 * wait, and not at all while nobody waits for the service.
 *
 * <p>Over OFREP go flags with a context of the shop's own, and those outside of a page.
 */
final class LotseProvider implements FeatureProvider {
    private static final int MOST_AT_ONCE = 64;
    private static final String TARGET = "targetingKey";
    private final OfrepProvider ofrep;
    private final CircuitBreaker breaker;
    private final int timeoutMs;
    private final ExecutorService threads = new ThreadPoolExecutor(
            0, MOST_AT_ONCE, 30, TimeUnit.SECONDS, new SynchronousQueue<>(), daemons("lotse-flags"));

    LotseProvider(LotseProperties properties, CircuitBreaker breaker) {
        this.breaker = breaker;
        this.timeoutMs = properties.timeoutMs();
        this.ofrep = provider(properties);
    }

    @Override
    public Metadata getMetadata() {
        return () -> "lotse";
    }

    @Override
    public void shutdown() {
        threads.shutdownNow();
        ofrep.shutdown();
    }

    @Override
    public ProviderEvaluation<Boolean> getBooleanEvaluation(String key, Boolean byDefault, EvaluationContext context) {
        return evaluate(key, byDefault, context, value -> value instanceof Boolean found ? found : null,
                () -> ofrep.getBooleanEvaluation(key, byDefault, context));
    }

    @Override
    public ProviderEvaluation<String> getStringEvaluation(String key, String byDefault, EvaluationContext context) {
        return evaluate(key, byDefault, context, value -> value instanceof String found ? found : null,
                () -> ofrep.getStringEvaluation(key, byDefault, context));
    }

    @Override
    public ProviderEvaluation<Integer> getIntegerEvaluation(String key, Integer byDefault, EvaluationContext context) {
        return evaluate(key, byDefault, context, value -> value instanceof Integer found ? found : null,
                () -> ofrep.getIntegerEvaluation(key, byDefault, context));
    }

    @Override
    public ProviderEvaluation<Double> getDoubleEvaluation(String key, Double byDefault, EvaluationContext context) {
        return evaluate(key, byDefault, context, value -> value instanceof Number found ? (Double) found.doubleValue() : null,
                () -> ofrep.getDoubleEvaluation(key, byDefault, context));
    }

    @Override
    public ProviderEvaluation<Value> getObjectEvaluation(String key, Value byDefault, EvaluationContext context) {
        return evaluate(key, byDefault, context, Value::objectToValue,
                () -> ofrep.getObjectEvaluation(key, byDefault, context));
    }

    /**
     * One flag.
     *
     * @param as the value as the type that is asked for, null if it is of another
     */
    private <T> ProviderEvaluation<T> evaluate(
            String key,
            T byDefault,
            EvaluationContext context,
            Function<Object, T> as,
            Supplier<ProviderEvaluation<T>> asked) {
        LotseSession session = Lotse.ofThread();
        String target = session.session();
        if (!target.isEmpty() && target.equals(context.getTargetingKey()) && context.keySet().equals(Set.of(TARGET))) {
            Flag flag = session.flags().get(key);
            if (flag != null) {
                return told(flag, as.apply(flag.value()), byDefault);
            }
        }
        return ask(byDefault, asked, session.isMeasured() ? session.waiting() : new Waiting(timeoutMs));
    }

    private <T> ProviderEvaluation<T> ask(T byDefault, Supplier<ProviderEvaluation<T>> asked, Waiting waiting) {
        long allowed = waiting.left();
        if (allowed == 0 || !breaker.tryAcquirePermission()) {
            return failed(byDefault, ErrorCode.GENERAL, "nobody waits for the service now");
        }
        long begin = System.nanoTime();
        try {
            Future<ProviderEvaluation<T>> answer = threads.submit(asked::get);
            try {
                ProviderEvaluation<T> found = answer.get(allowed, TimeUnit.NANOSECONDS);
                judge(begin, found.getErrorCode() == ErrorCode.GENERAL ? new IllegalStateException(found.getErrorMessage()) : null);
                return found;
            } finally {
                answer.cancel(true);
            }
        } catch (TimeoutException error) {
            if (allowed < TimeUnit.MILLISECONDS.toNanos(timeoutMs)) {
                breaker.releasePermission(); // it had less time than it may take
            } else {
                judge(begin, error);
            }
            return failed(byDefault, ErrorCode.GENERAL, "no answer in time");
        } catch (ExecutionException | RejectedExecutionException error) {
            judge(begin, error);
            return failed(byDefault, ErrorCode.GENERAL, "no answer: " + error.getClass().getSimpleName());
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            breaker.releasePermission();
            return failed(byDefault, ErrorCode.GENERAL, "interrupted");
        } finally {
            waiting.waited(System.nanoTime() - begin);
        }
    }

    private void judge(long begin, Throwable problem) {
        long took = System.nanoTime() - begin;
        if (problem == null) {
            breaker.onSuccess(took, TimeUnit.NANOSECONDS);
        } else {
            breaker.onError(took, TimeUnit.NANOSECONDS, problem);
        }
    }

    private static <T> ProviderEvaluation<T> told(Flag flag, T value, T byDefault) {
        if (value == null) {
            return flag.value() == null
                    ? failed(byDefault, ErrorCode.FLAG_NOT_FOUND, "the flag has no value of its own")
                    : failed(byDefault, ErrorCode.TYPE_MISMATCH, "the flag is of another type");
        }
        return ProviderEvaluation.<T>builder().value(value).variant(flag.variant()).reason(flag.reason()).build();
    }

    private static <T> ProviderEvaluation<T> failed(T byDefault, ErrorCode code, String message) {
        return ProviderEvaluation.<T>builder().value(byDefault).errorCode(code).errorMessage(message).reason("ERROR").build();
    }

    private static OfrepProvider provider(LotseProperties properties) {
        Duration timeout = Duration.ofMillis(properties.timeoutMs());
        String key = properties.key();
        allow(URI.create(properties.url()).getHost());
        try {
            return OfrepProvider.constructProvider(OfrepProviderOptions.builder()
                    .baseUrl(properties.url())
                    .requestTimeout(timeout)
                    .connectTimeout(timeout)
                    .executor(Executors.newCachedThreadPool(daemons("lotse-ofrep")))
                    .headers(key.isEmpty()
                            ? ImmutableMap.of()
                            : ImmutableMap.of("Authorization", ImmutableList.of("Bearer " + key)))
                    .build());
        } catch (IllegalArgumentException error) {
            throw new IllegalArgumentException(
                    "lotse.url: OpenFeature's provider does not take '" + properties.url() + "'; name the service by a name"
                            + " without dots or by its number, or set lotse.open-feature=false", error);
        }
    }

    /**
     * The provider takes addresses under the internet's own top-level domains only. A shop's service is inside, under names
     * such as lotse.shop.svc.cluster.local.
     */
    private static void allow(String host) {
        String last = host.substring(host.lastIndexOf('.') + 1);
        if (last.matches("[A-Za-z][A-Za-z0-9-]*") && host.contains(".")) {
            try {
                DomainValidator.updateTLDOverride(DomainValidator.ArrayType.LOCAL_PLUS, last);
            } catch (IllegalStateException error) {
                // the shop has used the validator already; then the provider says what it thinks of the address
            }
        }
    }

    private static ThreadFactory daemons(String name) {
        return task -> {
            Thread thread = new Thread(task, name);
            thread.setDaemon(true);
            return thread;
        };
    }
}
