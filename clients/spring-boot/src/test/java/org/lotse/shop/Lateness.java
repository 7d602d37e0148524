package org.lotse.shop;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** How late this process's timers are at worst, on a machine that does other things, too: nothing of ours can be faster. */
@RestController
class Lateness {
    private static final long PAUSE_MS = 2;
    private final AtomicLong worst = new AtomicLong();

    Lateness() {
        Thread thread = new Thread(this::measure, "lateness");
        thread.setDaemon(true);
        thread.start();
    }

    @GetMapping("/lateness")
    double worstMs() {
        return worst.get() / 1e6;
    }

    private void measure() {
        try {
            while (true) {
                long begin = System.nanoTime();
                TimeUnit.MILLISECONDS.sleep(PAUSE_MS);
                long late = System.nanoTime() - begin - TimeUnit.MILLISECONDS.toNanos(PAUSE_MS);
                worst.accumulateAndGet(late, Math::max);
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
