package org.lotse.spring;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.openfeature.sdk.NoOpProvider;
import dev.openfeature.sdk.OpenFeatureAPI;
import io.micrometer.core.instrument.binder.MeterBinder;
import java.io.IOException;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.springframework.boot.actuate.health.HealthIndicator;
import org.springframework.boot.actuate.health.Status;
import org.springframework.boot.autoconfigure.AutoConfigurations;
import org.springframework.boot.test.context.FilteredClassLoader;
import org.springframework.boot.test.context.runner.WebApplicationContextRunner;

/** What a shop gets by the starter, and what it is told of wrong settings. */
class LotseAutoConfigurationTest {
    private static final String KEY = "lotse_sec_0123456789ab_" + "0123456789abcdef".repeat(4);
    private final WebApplicationContextRunner shop = new WebApplicationContextRunner()
            .withConfiguration(AutoConfigurations.of(LotseAutoConfiguration.class, LotseActuatorAutoConfiguration.class))
            .withPropertyValues("lotse.url=http://127.0.0.1:9/", "lotse.key=" + KEY);

    @BeforeEach
    void reset() {
        // OpenFeature is the process's, and other tests' shops are still there
        OpenFeatureAPI.getInstance().setProviderAndWait(new NoOpProvider());
    }

    @Test
    void theAddressIsEnough() {
        shop.run(context -> {
            LotseProperties properties = context.getBean(LotseProperties.class);
            assertThat(properties.url()).isEqualTo("http://127.0.0.1:9");
            assertThat(properties.timeoutMs()).isEqualTo(30);
            assertThat(properties.toString()).doesNotContain(KEY);
            assertThat(OpenFeatureAPI.getInstance().getProviderMetadata().getName()).isEqualTo("lotse");
            assertThat(context).hasSingleBean(Lotse.class).hasSingleBean(MeterBinder.class);
            assertThat(context.getBean(HealthIndicator.class).health().getStatus()).isEqualTo(Status.UP);
        });
        assertThat(OpenFeatureAPI.getInstance().getProviderMetadata().getName()).isNotEqualTo("lotse");
    }

    @Test
    void withoutAnAddressTheShopRunsAndNothingIsMeasured() {
        shop.withPropertyValues("lotse.url=").run(context -> {
            assertThat(context).hasNotFailed();
            assertThat(context.getBean(HealthIndicator.class).health().getStatus()).isEqualTo(Status.UNKNOWN);
            assertThat(OpenFeatureAPI.getInstance().getProviderMetadata().getName()).isNotEqualTo("lotse");
        });
    }

    @Test
    void neitherActuatorNorMicrometerHaveToBeThere() {
        FilteredClassLoader without = new FilteredClassLoader("io.micrometer", "org.springframework.boot.actuate");
        shop.withClassLoader(without).run(context -> assertThat(context).hasNotFailed().hasSingleBean(Lotse.class));
    }

    @Test
    void theShopsOwnBeansComeFirst() {
        LotseVisitor own = request -> java.util.Optional.of("own");
        shop.withBean(LotseVisitor.class, () -> own)
                .run(context -> assertThat(context.getBean(LotseVisitor.class)).isSameAs(own));
    }

    @ParameterizedTest
    @CsvSource({
        "lotse.url, lotse:3000, the service's address",
        "lotse.url, https://lotse.example/?key=1, neither user",
        "lotse.url, https://user:word@lotse.example, neither user",
        "lotse.key, lotse_pub_0123456789ab_00, a public one",
        "lotse.key, hunter2hunter2, something else",
        "lotse.timeout-ms, 0, a whole number of 1 or more",
        "lotse.cookie, a b, letters",
        "lotse.flags, help&scores=none, keys separated by commas",
        "lotse.circuit.failures, 0, a whole number of 1 or more",
        "lotse.queue.capacity, -1, a whole number of 1 or more",
    })
    void aWrongSettingIsNamed(String name, String value, String expected) {
        shop.withPropertyValues(name + "=" + value).run(context -> {
            assertThat(context).hasFailed();
            String told = causes(context.getStartupFailure());
            assertThat(told).contains(name + ":", expected);
            assertThat(told).doesNotContain("hunter2", KEY);
        });
    }

    @Test
    void everySettingIsExplainedToEditors() throws IOException {
        Set<String> found = new HashSet<>();
        try (var file = getClass().getResourceAsStream("/META-INF/spring-configuration-metadata.json")) {
            for (JsonNode property : new ObjectMapper().readTree(file).get("properties")) {
                found.add(property.get("name").asText());
                assertThat(property.path("description").asText()).as(property.get("name").asText()).isNotBlank();
            }
        }
        assertThat(found).containsExactlyInAnyOrder(
                "lotse.url", "lotse.key", "lotse.timeout-ms", "lotse.flags", "lotse.cookie", "lotse.skip", "lotse.open-feature",
                "lotse.circuit.failures", "lotse.circuit.open-ms",
                "lotse.queue.capacity", "lotse.queue.retry-ms", "lotse.queue.flush-ms");
    }

    private static String causes(Throwable error) {
        StringBuilder told = new StringBuilder();
        for (Throwable each = error; each != null; each = each.getCause()) {
            told.append(each.getMessage()).append('\n');
        }
        return told.toString();
    }
}
