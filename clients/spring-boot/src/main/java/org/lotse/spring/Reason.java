package org.lotse.spring;

import java.util.Locale;

/** Why a session's scores and flags are what they are. */
public enum Reason {
    /** The service has answered. */
    OK,
    /** It has not answered in time; the event is on its way all the same. */
    TIMEOUT,
    /**
     * It cannot be reached, nobody waits for it after failures in a row, or an event of the same visitor has to arrive before; the
     * event waits in the queue.
     */
    UNAVAILABLE,
    /** It does not take the event; the log says why. */
    REFUSED,
    /** The visitor has not allowed that anything is sent. */
    NO_CONSENT,
    /** The request is no page that a visitor has opened, or its route has no event; {@code track} works all the same. */
    NO_EVENT,
    /** A program, a page that is loaded in advance, or a path of {@code lotse.skip}; nothing is sent. */
    SKIPPED,
    /** {@code lotse.url} is not set. */
    OFF;

    /** The word in metrics and pages. */
    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }

    @Override
    public String toString() {
        return word();
    }
}
