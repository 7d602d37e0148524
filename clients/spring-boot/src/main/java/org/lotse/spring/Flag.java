package org.lotse.spring;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import java.util.List;
import java.util.Map;

/**
 * A flag's value for a session.
 *
 * @param value a text, a number, a switch, or what else JSON has; null where the shop's own default is meant
 * @param variant the arm of an experiment, empty outside of one
 * @param reason why it is this one, in OpenFeature's words
 */
@JsonIgnoreProperties(ignoreUnknown = true)
public record Flag(Object value, String variant, String reason) {
    public Flag {
        variant = variant == null ? "" : variant;
        reason = reason == null ? "STATIC" : reason;
    }

    /** The value if it is of the same kind as the default, else the default; whole numbers are decimal ones, too. */
    @SuppressWarnings("unchecked")
    <T> T or(T byDefault) {
        Object found = value;
        if (byDefault instanceof Double && value instanceof Number number) {
            found = number.doubleValue();
        } else if (byDefault instanceof Long && value instanceof Integer number) {
            found = number.longValue();
        }
        return found != null && (byDefault == null || isAlike(found, byDefault)) ? (T) found : byDefault;
    }

    /** Of one class; of objects and arrays whichever they have. */
    private static boolean isAlike(Object found, Object byDefault) {
        return byDefault.getClass().isInstance(found)
                || found instanceof Map && byDefault instanceof Map
                || found instanceof List && byDefault instanceof List;
    }
}
