package org.lotse.spring;

import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;

/** Warnings, each kind once a minute: a service that is away for an hour does not fill the shop's log. */
final class Told {
    private static final long PAUSE = TimeUnit.MINUTES.toNanos(1);
    private final ConcurrentHashMap<String, Long> latest = new ConcurrentHashMap<>();
    private final Logger log;

    Told(Logger log) {
        this.log = log;
    }

    void warn(String message, Object... values) {
        long now = System.nanoTime();
        Long stored = latest.compute(message, (kind, before) -> before == null || now - before > PAUSE ? (Long) now : before);
        if (stored == now) {
            log.warn(message, values);
        }
    }
}
