package org.lotse.spring;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import java.util.Map;

/**
 * What the service says of a session after an event.
 *
 * @param reason why its scores know less than they should, such as {@code store_unreachable}; empty if they do not
 */
@JsonIgnoreProperties(ignoreUnknown = true)
record Answer(String session, String reason, Map<String, Double> scores, Map<String, Flag> flags) {
    static final Answer NONE = new Answer("", "", Map.of(), Map.of());

    Answer {
        session = session == null ? "" : session;
        reason = reason == null ? "" : reason;
        scores = scores == null ? Map.of() : Map.copyOf(scores);
        flags = flags == null ? Map.of() : Map.copyOf(flags);
    }
}
