package org.lotse.spring;

import com.fasterxml.jackson.annotation.JsonValue;
import java.util.Locale;

/** What a visitor may consent to, in the service's words. */
public enum Purpose {
    /** Events may be counted beyond the running session. */
    MEASURE,
    /** Visits may be linked: the only purpose for which something is kept on the device. */
    LINK,
    /** Pages may be made for this visitor. */
    PERSONALISE;

    /** The word on the wire. */
    @JsonValue
    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }
}
