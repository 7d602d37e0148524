package org.lotse.spring;

import java.util.List;

/** A shop's settings as they are if only the address is given. */
final class Settings {
    private Settings() {}

    static LotseProperties of(String url) {
        return of(url, 30);
    }

    static LotseProperties of(String url, int timeoutMs) {
        return of(url, timeoutMs, 1_000);
    }

    /** capacity: of the queue. */
    static LotseProperties of(String url, int timeoutMs, int capacity) {
        return new LotseProperties(
                url, "", timeoutMs, "all", "lotse", List.of(), true,
                new LotseProperties.Circuit(5, 1_000), new LotseProperties.Queue(capacity, 50, 2_000));
    }
}
