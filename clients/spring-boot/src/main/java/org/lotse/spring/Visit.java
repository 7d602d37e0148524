package org.lotse.spring;

import jakarta.servlet.http.HttpServletRequest;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** What a request says of itself: whether a visitor opens a page with it, and whether the browser objects to being linked. */
final class Visit {
    private Visit() {}

    /** A document that somebody opens, not a part of one. */
    static boolean isPage(HttpServletRequest request) {
        if (!"GET".equals(request.getMethod())) {
            return false;
        }
        String destination = request.getHeader("Sec-Fetch-Dest");
        if (destination != null) {
            return "document".equals(destination);
        }
        String accept = request.getHeader("Accept");
        return accept != null && accept.toLowerCase(Locale.ROOT).contains("text/html")
                && request.getHeader("X-Requested-With") == null;
    }

    /** The headers by which the browser objects: Global Privacy Control, Do Not Track; none if it does not. */
    static Map<String, String> signals(HttpServletRequest request) {
        Map<String, String> signals = new LinkedHashMap<>();
        for (String name : new String[] {"Sec-GPC", "DNT"}) {
            if ("1".equals(request.getHeader(name))) {
                signals.put(name, "1");
            }
        }
        return signals;
    }

    /** Loaded before anybody has asked for it, and perhaps never seen. */
    static boolean isInAdvance(HttpServletRequest request) {
        for (String name : new String[] {"Sec-Purpose", "Purpose", "X-Moz"}) {
            String purpose = request.getHeader(name);
            if (purpose != null && purpose.toLowerCase(Locale.ROOT).contains("prefetch")) {
                return true;
            }
        }
        return false;
    }
}
