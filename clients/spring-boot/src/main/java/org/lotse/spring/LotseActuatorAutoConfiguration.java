package org.lotse.spring;

import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.FunctionTimer;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.binder.MeterBinder;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import org.springframework.boot.actuate.autoconfigure.health.ConditionalOnEnabledHealthIndicator;
import org.springframework.boot.actuate.health.Health;
import org.springframework.boot.actuate.health.HealthIndicator;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Metrics where Micrometer is there, and health where Actuator is. */
@AutoConfiguration(after = LotseAutoConfiguration.class)
@ConditionalOnBean(Sender.class)
public class LotseActuatorAutoConfiguration {

    /** What became of pages and events. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(MeterBinder.class)
    static class Metrics {
        @Bean
        MeterBinder lotseMetrics(Counts counts, Outbox outbox, Sender sender) {
            return registry -> {
                for (Reason reason : new Reason[] {Reason.OK, Reason.TIMEOUT, Reason.UNAVAILABLE, Reason.REFUSED}) {
                    FunctionCounter.builder("lotse.pages", counts.pages(reason), LongAdder::sum)
                            .tag("reason", reason.word())
                            .description("Pages by what came of asking for their scores")
                            .register(registry);
                }
                counter("delivered", counts.delivered).register(registry);
                counter("refused", counts.refused).register(registry);
                counter("dropped", counts.dropped).register(registry);
                FunctionTimer.builder("lotse.answers", counts, all -> all.answers.sum(),
                                all -> all.nanoseconds.sum(), TimeUnit.NANOSECONDS)
                        .description("How long the service took to answer pages")
                        .register(registry);
                Gauge.builder("lotse.queue", outbox, Outbox::size).description("Events that wait").register(registry);
                Gauge.builder("lotse.circuit.open", sender, one -> isClosed(one) ? 0 : 1)
                        .description("1 while nobody waits for the service")
                        .register(registry);
            };
        }

        private static FunctionCounter.Builder<LongAdder> counter(String outcome, LongAdder count) {
            return FunctionCounter.builder("lotse.events", count, LongAdder::sum)
                    .tag("outcome", outcome)
                    .description("Events by what became of them");
        }
    }

    /** The shop is well without the service, so its absence is unknown and not down: no load balancer takes a shop out. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnClass(HealthIndicator.class)
    static class ServiceHealth {
        @Bean
        @ConditionalOnEnabledHealthIndicator("lotse")
        HealthIndicator lotseHealthIndicator(LotseProperties properties, Counts counts, Outbox outbox, Sender sender) {
            return () -> {
                Health.Builder health = properties.enabled() && isClosed(sender) ? Health.up() : Health.unknown();
                return health.withDetail("circuit", sender.breaker().getState().name().toLowerCase(java.util.Locale.ROOT))
                        .withDetail("waiting", outbox.size())
                        .withDetail("dropped", counts.dropped.sum())
                        .build();
            };
        }
    }

    private static boolean isClosed(Sender sender) {
        return sender.breaker().getState() == CircuitBreaker.State.CLOSED;
    }
}
