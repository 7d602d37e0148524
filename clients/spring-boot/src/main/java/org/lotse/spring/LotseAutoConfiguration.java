package org.lotse.spring;

import dev.openfeature.sdk.Client;
import dev.openfeature.sdk.OpenFeatureAPI;
import java.util.List;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.event.ApplicationReadyEvent;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.ApplicationListener;
import org.springframework.context.annotation.Bean;
import org.springframework.web.method.support.HandlerMethodArgumentResolver;
import org.springframework.web.servlet.config.annotation.InterceptorRegistry;
import org.springframework.web.servlet.config.annotation.WebMvcConfigurer;

/** What a shop has by the starter alone. Its own beans of consent, visitors and OpenFeature's client come first. */
@AutoConfiguration
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
@EnableConfigurationProperties(LotseProperties.class)
public class LotseAutoConfiguration {
    private static final Logger LOG = LoggerFactory.getLogger(LotseAutoConfiguration.class);
    /** Behind Spring Security's, so that a consent bean may ask who is logged in. */
    private static final int ORDER = 0;

    @Bean
    @ConditionalOnMissingBean
    LotseConsent lotseConsent() {
        return request -> Set.of();
    }

    @Bean
    @ConditionalOnMissingBean
    LotseVisitor lotseVisitor() {
        return LotseVisitor.ofPage();
    }

    @Bean
    Lotse lotse() {
        return new Lotse();
    }

    @Bean
    Counts lotseCounts() {
        return new Counts();
    }

    @Bean
    Collector lotseCollector(LotseProperties properties) {
        return new Collector(properties);
    }

    @Bean
    Outbox lotseOutbox(Collector collector, LotseProperties properties, Counts counts) {
        return new Outbox(collector, properties, counts);
    }

    @Bean
    Sender lotseSender(Collector collector, Outbox outbox, Counts counts, LotseProperties properties) {
        return new Sender(collector, outbox, counts, properties);
    }

    @Bean
    FilterRegistrationBean<LotseFilter> lotseFilter(
            LotseProperties properties, Sender sender, LotseConsent consent, LotseVisitor visitor) {
        Visitors visitors = new Visitors(consent, visitor, new VisitorCookie(properties.cookie()));
        FilterRegistrationBean<LotseFilter> filter =
                new FilterRegistrationBean<>(new LotseFilter(properties, sender, visitors));
        filter.setOrder(ORDER);
        return filter;
    }

    @Bean
    WebMvcConfigurer lotseMvc() {
        return new WebMvcConfigurer() {
            @Override
            public void addInterceptors(InterceptorRegistry registry) {
                registry.addInterceptor(new LotseInterceptor());
            }

            @Override
            public void addArgumentResolvers(List<HandlerMethodArgumentResolver> resolvers) {
                resolvers.add(new LotseSessionResolver());
            }
        };
    }

    /** Whatever becomes of it: the shop is ready with or without the service. */
    @Bean
    ApplicationListener<ApplicationReadyEvent> lotseWarmUp(LotseProperties properties, Collector collector) {
        return event -> {
            if (properties.enabled()) {
                collector.warmUp();
            } else {
                LOG.info("lotse.url is not set: nothing is measured, and flags are the shop's defaults");
            }
        };
    }

    /** Sets OpenFeature's provider as long as the shop runs. */
    @Bean(destroyMethod = "close")
    Flags lotseFlags(LotseProperties properties, Sender sender) {
        return new Flags(properties, sender);
    }

    @Bean
    @ConditionalOnMissingBean
    Client openFeatureClient(Flags flags) {
        return OpenFeatureAPI.getInstance().getClient();
    }
}
