package org.lotse.spring;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;

/** What became of pages and events since the start. */
final class Counts {
    private final Map<Reason, LongAdder> pages = new EnumMap<>(Reason.class);
    /** Events that the service has taken. */
    final LongAdder delivered = new LongAdder();
    /** Events that it will not take, whoever sends them again. */
    final LongAdder refused = new LongAdder();
    /** Events that nobody has any more: the queue was full, or the shop has ended. */
    final LongAdder dropped = new LongAdder();
    /** Answers to pages, and how long they took together. */
    final LongAdder answers = new LongAdder();
    final LongAdder nanoseconds = new LongAdder();

    Counts() {
        for (Reason reason : Reason.values()) {
            pages.put(reason, new LongAdder());
        }
    }

    LongAdder pages(Reason reason) {
        return pages.get(reason);
    }
}
