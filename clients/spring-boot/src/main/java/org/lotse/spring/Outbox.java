package org.lotse.spring;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Events until the service has taken them, and withdrawals: in memory, in their order, those that no page sends by itself
 * in batches by a thread of its own.
 *
 * <p>What is sent again has the same id, so it counts once, as long as its visitor has had fewer than seven other events
 * since: the service remembers no more. So a visitor's events keep their order, behind one that may have arrived too, and a
 * page does not ask while one of its visitor's is in doubt ({@link #mustWait}).
 *
 * <p>Nothing here blocks or throws; what finds no room is dropped and counted.
 */
final class Outbox implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(Outbox.class);
    private static final int BATCH = 50;
    private static final int DOUBLINGS = 3;
    /** So many events of a visitor may be on their way at the same time: the service knows so many again. */
    private static final int AT_ONCE = 7;

    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final Map<String, Kept> kept = new LinkedHashMap<>();
    private final Map<String, List<Kept>> ofVisitors = new HashMap<>();
    private final Set<String> withdrawn = new LinkedHashSet<>();
    private final Collector collector;
    private final LotseProperties.Queue settings;
    private final long overdue;
    private final Counts counts;
    private final Told told = new Told(LOG);
    private final Thread thread = new Thread(this::run, "lotse-outbox");
    private int failures;
    private boolean over;
    private long notBefore = System.nanoTime();
    private long end = Long.MAX_VALUE;

    Outbox(Collector collector, LotseProperties properties, Counts counts) {
        this.collector = collector;
        this.settings = properties.queue();
        this.overdue = TimeUnit.MILLISECONDS.toNanos(properties.timeoutMs());
        this.counts = counts;
        thread.setDaemon(true);
        thread.start();
    }

    /** Have it sent, as soon as the service takes it. */
    void add(Event event) {
        lock.lock();
        try {
            if (keep(event) == null) {
                drop();
            } else {
                changed.signal();
            }
        } finally {
            lock.unlock();
        }
    }

    /** A page's event is on its way by itself: it is kept until it is {@link #answered} or {@link #failed}. */
    void begin(Event event) {
        lock.lock();
        try {
            Kept begun = keep(event);
            if (begun != null) {
                begun.isUnderWay = true;
                begun.sending();
            }
        } finally {
            lock.unlock();
        }
    }

    /** The service has it; what waited for that may be sent. */
    void answered(Event event) {
        lock.lock();
        try {
            counts.delivered.increment();
            forget(event);
            if (ofVisitors.containsKey(event.visitor()) || !withdrawn.isEmpty() || isClosed()) {
                changed.signal();
            }
        } finally {
            lock.unlock();
        }
    }

    /** Nothing came of a page's own request, or nothing that anybody knows: it is sent again. */
    void failed(Event event) {
        lock.lock();
        try {
            Kept begun = kept.get(event.id());
            if (begun == null || over) {
                drop();
            } else if (begun.isWithdrawn) {
                forget(event);
            } else {
                begun.isUnderWay = false;
                begun.isInDoubt = true;
            }
            changed.signal();
        } finally {
            lock.unlock();
        }
    }

    /**
     * Whether a page of a visitor has to wait for what came before it: for an event that was sent, and of which nobody knows
     * whether it arrived, or for too many that are being sent.
     */
    boolean mustWait(String visitor) {
        lock.lock();
        try {
            long now = System.nanoTime();
            int several = 0;
            for (Kept one : ofVisitors.getOrDefault(visitor, List.of())) {
                if (one.isSent && (one.isInDoubt || now - one.sentAt > overdue || ++several >= AT_ONCE)) {
                    return true;
                }
            }
            return false;
        } finally {
            lock.unlock();
        }
    }

    /** Have the service erase a visitor once nothing of them is on its way any more, and send nothing that still waits. */
    void withdraw(String visitor) {
        lock.lock();
        try {
            for (Kept one : List.copyOf(ofVisitors.getOrDefault(visitor, List.of()))) {
                one.isWithdrawn = true;
                if (!one.isUnderWay) {
                    forget(one.event);
                }
            }
            if (withdrawn.size() < settings.capacity()) {
                withdrawn.add(visitor);
            }
            changed.signal();
        } finally {
            lock.unlock();
        }
    }

    /** How many wait that no page's request has. */
    int size() {
        lock.lock();
        try {
            return (int) kept.values().stream().filter(one -> !one.isUnderWay).count();
        } finally {
            lock.unlock();
        }
    }

    /** The service answers again: there is no reason to wait longer. */
    void tryNow() {
        lock.lock();
        try {
            notBefore = System.nanoTime();
            changed.signal();
        } finally {
            lock.unlock();
        }
    }

    /** Send what is left while there is time; what cannot be sent is counted. */
    @Override
    public void close() {
        lock.lock();
        try {
            end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(settings.flushMs());
        } finally {
            lock.unlock();
        }
        tryNow();
        try {
            thread.join(settings.flushMs() + 1L);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
        int left = size();
        if (left > 0) {
            counts.dropped.add(left);
            LOG.warn("{} events could not be sent before the end", left);
        }
    }

    /** An event until it is known what became of it. */
    private static final class Kept {
        private final Event event;
        private boolean isUnderWay;
        private boolean isSent;
        private boolean isInDoubt;
        private boolean isWithdrawn;
        private long sentAt;

        private Kept(Event event) {
            this.event = event;
        }

        private void sending() {
            isSent = true;
            sentAt = System.nanoTime();
        }
    }

    /** A visitor to be erased, or else events. */
    private record Work(String withdrawn, List<Kept> several) {
        List<Event> events() {
            return several.stream().map(one -> one.event).toList();
        }
    }

    // what follows is done by who holds the lock

    /** null if there is no room. */
    private Kept keep(Event event) {
        if (over || kept.size() >= settings.capacity()) {
            return null;
        }
        Kept begun = new Kept(event);
        kept.put(event.id(), begun);
        ofVisitors.computeIfAbsent(event.visitor(), visitor -> new ArrayList<>()).add(begun);
        return begun;
    }

    private void forget(Event event) {
        Kept gone = kept.remove(event.id());
        if (gone != null) {
            List<Kept> own = ofVisitors.get(event.visitor());
            own.remove(gone);
            if (own.isEmpty()) {
                ofVisitors.remove(event.visitor());
            }
        }
    }

    private void drop() {
        counts.dropped.increment();
        told.warn("events are dropped, {} wait", kept.size());
    }

    private boolean isClosed() {
        return end != Long.MAX_VALUE;
    }

    /** What can be sent now; null if there is nothing. */
    private Work sendable() {
        for (String visitor : withdrawn) {
            if (!ofVisitors.containsKey(visitor)) {
                return new Work(visitor, List.of());
            }
        }
        Set<String> before = new HashSet<>();
        List<Kept> several = new ArrayList<>();
        for (Kept one : kept.values()) {
            if (one.isUnderWay) {
                before.add(one.event.visitor());
            } else if (!before.contains(one.event.visitor())) {
                several.add(one);
            }
            if (several.size() == BATCH) {
                break;
            }
        }
        return several.isEmpty() ? null : new Work("", several);
    }

    // and what the thread does

    private void run() {
        try {
            for (Work work = next(); work != null; work = next()) {
                send(work);
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            lock.lock();
            over = true;
            lock.unlock();
        }
    }

    /** What is to be sent next, when it may be; null when it is over. */
    private Work next() throws InterruptedException {
        lock.lock();
        try {
            while (true) {
                long now = System.nanoTime();
                if (isClosed() && (now - end >= 0 || kept.isEmpty() && withdrawn.isEmpty())) {
                    return null;
                }
                Work work = sendable();
                if (work == null) {
                    changed.awaitNanos(isClosed() ? end - now : Long.MAX_VALUE);
                } else if (notBefore - now > 0) {
                    changed.awaitNanos(notBefore - now);
                } else {
                    work.several().forEach(Kept::sending);
                    return work;
                }
            }
        } finally {
            lock.unlock();
        }
    }

    private void send(Work work) throws InterruptedException {
        List<Event> events = work.events();
        try {
            if (events.isEmpty()) {
                collector.erase(work.withdrawn());
            } else {
                collector.deliver(events);
                counts.delivered.add(events.size());
            }
            settle(work, events);
        } catch (Refusal refusal) {
            if (refusal.passes()) {
                told.warn("events wait, the service answers: {}", refusal.getMessage());
                later(work, refusal.after());
            } else {
                refused(work, refusal);
            }
        } catch (IOException | RuntimeException error) {
            told.warn("events wait, the service cannot be reached: {}", error.getClass().getSimpleName());
            later(work, Duration.ZERO);
        }
    }

    /** One bad event has the whole array refused: it goes, the others come again. */
    private void refused(Work work, Refusal refusal) {
        List<Event> events = work.events();
        List<Event> bad = refusal.places().stream()
                .distinct()
                .filter(place -> place >= 0 && place < events.size())
                .map(events::get)
                .toList();
        List<Event> gone = bad.isEmpty() ? events : bad;
        told.warn("the service refuses: {}", refusal.getMessage());
        counts.refused.add(gone.size());
        settle(work, gone);
    }

    /** It was answered, and these events are done with. */
    private void settle(Work work, List<Event> gone) {
        lock.lock();
        try {
            failures = 0;
            withdrawn.remove(work.withdrawn());
            gone.forEach(this::forget);
        } finally {
            lock.unlock();
        }
    }

    private void later(Work work, Duration least) {
        lock.lock();
        try {
            work.several().forEach(one -> one.isInDoubt = true);
            long pause = (long) settings.retryMs() << Math.min(failures++, DOUBLINGS);
            // not all shops of a service come back in the same moment
            pause = Math.max(least.toMillis(), pause - ThreadLocalRandom.current().nextLong(pause / 4 + 1));
            if (isClosed()) {
                pause = Math.min(pause, settings.retryMs()); // there will be no later
            }
            notBefore = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(pause);
        } finally {
            lock.unlock();
        }
    }
}
