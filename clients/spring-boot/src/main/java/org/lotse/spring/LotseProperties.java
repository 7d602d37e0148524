package org.lotse.spring;

import java.net.URI;
import java.util.List;
import java.util.regex.Pattern;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.bind.DefaultValue;

/**
 * The settings of a shop; wrong ones keep it from starting.
 *
 * @param url address of the service, such as http://lotse:3000; without it nothing is measured, and flags are the shop's defaults
 * @param key secret key (lotse keys create --kind secret); none for a service without keys on the same machine
 * @param timeoutMs longest that a page waits for the service, in milliseconds, whatever it asks
 * @param flags flags that come with a page: all, none, or keys separated by commas
 * @param cookie name of the cookie of visitors who have consented to link their visits
 * @param skip paths that are no pages, as patterns such as /internal/**
 * @param openFeature whether OpenFeature's provider is set to the service
 * @param circuit when nobody waits for the service any more
 * @param queue where events wait that could not be sent at once
 */
@ConfigurationProperties("lotse")
public record LotseProperties(
        String url,
        String key,
        @DefaultValue("30") int timeoutMs,
        @DefaultValue("all") String flags,
        @DefaultValue("lotse") String cookie,
        @DefaultValue({"/actuator/**", "/error", "/webjars/**", "/favicon.ico", "/robots.txt"}) List<String> skip,
        @DefaultValue("true") boolean openFeature,
        @DefaultValue Circuit circuit,
        @DefaultValue Queue queue) {

    private static final Pattern KEY = Pattern.compile("lotse_sec_[0-9a-f]{12}_[0-9a-f]{64}");
    private static final Pattern TOKEN = Pattern.compile("[A-Za-z0-9_-]{1,64}");

    /**
     * When nobody waits for the service any more.
     *
     * @param failures so many in a row, late answers among them
     * @param openMs for so long, in milliseconds; then one page tries
     */
    public record Circuit(@DefaultValue("5") int failures, @DefaultValue("5000") int openMs) {
        public Circuit {
            atLeast("lotse.circuit.failures", failures, 1);
            atLeast("lotse.circuit.open-ms", openMs, 1);
        }
    }

    /**
     * Where events wait that could not be sent at once: in memory.
     *
     * @param capacity most events that wait; more are dropped and counted
     * @param retryMs pause after the first failure, in milliseconds; it doubles up to eight times as much
     * @param flushMs how long the shop's end may take for what is still waiting, in milliseconds
     */
    public record Queue(
            @DefaultValue("10000") int capacity,
            @DefaultValue("250") int retryMs,
            @DefaultValue("5000") int flushMs) {
        public Queue {
            atLeast("lotse.queue.capacity", capacity, 1);
            atLeast("lotse.queue.retry-ms", retryMs, 1);
            atLeast("lotse.queue.flush-ms", flushMs, 0);
        }
    }

    public LotseProperties {
        url = url == null ? "" : url.strip().replaceAll("/+$", "");
        key = key == null ? "" : key.strip();
        skip = List.copyOf(skip);
        atLeast("lotse.timeout-ms", timeoutMs, 1);
        if (!url.isEmpty() && !isAddress(url)) {
            throw new IllegalArgumentException(
                    "lotse.url: found '" + url + "', expected the service's address, such as http://lotse:3000, with"
                            + " neither user, query nor fragment");
        }
        if (!key.isEmpty() && !KEY.matcher(key).matches()) {
            // never the key itself: it would be in the log
            throw new IllegalArgumentException(
                    "lotse.key: expected a secret key (lotse_sec_...) as `lotse keys create --kind secret` prints it, found "
                            + (key.startsWith("lotse_pub_") ? "a public one, which is for browsers" : "something else"));
        }
        if (!TOKEN.matcher(cookie).matches()) {
            throw new IllegalArgumentException(
                    "lotse.cookie: found '" + cookie + "', expected letters, digits, - and _, 64 at most");
        }
        if (flags.isBlank() || flags.contains("&") || flags.contains("#")) {
            throw new IllegalArgumentException(
                    "lotse.flags: found '" + flags + "', expected all, none, or keys separated by commas");
        }
    }

    /** Whether there is a service. */
    public boolean enabled() {
        return !url.isEmpty();
    }

    /** Without the key, wherever it is written to. */
    @Override
    public String toString() {
        return "LotseProperties[url=" + url + ", timeoutMs=" + timeoutMs + ", flags=" + flags + "]";
    }

    private static boolean isAddress(String url) {
        try {
            URI address = new URI(url);
            return ("http".equals(address.getScheme()) || "https".equals(address.getScheme()))
                    && address.getHost() != null
                    && address.getUserInfo() == null
                    && address.getQuery() == null
                    && address.getFragment() == null;
        } catch (java.net.URISyntaxException error) {
            return false;
        }
    }

    private static void atLeast(String name, int found, int least) {
        if (found < least) {
            throw new IllegalArgumentException(name + ": found " + found + ", expected a whole number of " + least + " or more");
        }
    }
}
