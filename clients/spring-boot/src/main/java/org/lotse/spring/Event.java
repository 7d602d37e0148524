package org.lotse.spring;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * An event on its way; its id stays the same however often it is sent, so that it counts once.
 *
 * @param about visitor, name, id, time and what else the service is told
 */
record Event(Map<String, Object> about) {
    static Event of(String name, Map<String, Object> origin, Map<String, Object> details) {
        Map<String, Object> about = new LinkedHashMap<>(origin);
        about.put("name", name);
        about.put("id", Ids.random());
        about.put("time", System.currentTimeMillis());
        about.putAll(details);
        return new Event(about);
    }

    String id() {
        return String.valueOf(about.get("id"));
    }

    String visitor() {
        return String.valueOf(about.get("visitor"));
    }

    /** As it is sent now: by {@code sent_at} the service sees how far this machine's clock is off. */
    Map<String, Object> wire() {
        Map<String, Object> sent = new LinkedHashMap<>(about);
        sent.put("sent_at", System.currentTimeMillis());
        return sent;
    }
}
