package org.lotse.spring;

import java.util.concurrent.TimeUnit;

/** How long a request may still wait for the service: one budget, whatever it asks and how often. */
final class Waiting {
    private final long allowed;
    private long waited;

    Waiting(int allowedMs) {
        allowed = TimeUnit.MILLISECONDS.toNanos(allowedMs);
    }

    /** Nanoseconds that are left; none are left after zero. */
    synchronized long left() {
        return Math.max(0, allowed - waited);
    }

    synchronized void waited(long nanoseconds) {
        waited += nanoseconds;
    }

    /** So much was waited for, in milliseconds. */
    synchronized double waitedMs() {
        return waited / 1e6;
    }
}
