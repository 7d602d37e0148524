package org.lotse.spring;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;

/**
 * Who the visitor of a request is, and what may be done with the events.
 *
 * <p>With consent to link it is who the cookie says. A cookie without that consent is a withdrawal: it is deleted, the
 * service erases the visitor, and the request is another one's.
 */
final class Visitors {
    private final LotseConsent consent;
    private final LotseVisitor visitor;
    private final VisitorCookie cookie;

    Visitors(LotseConsent consent, LotseVisitor visitor, VisitorCookie cookie) {
        this.consent = consent;
        this.visitor = visitor;
        this.cookie = cookie;
    }

    /** What the visitor allows, less what the browser objects to; null if nothing may be sent. */
    Set<Purpose> allowed(HttpServletRequest request) {
        Set<Purpose> granted = consent.of(request);
        if (granted == null) {
            return null;
        }
        Set<Purpose> allowed = EnumSet.noneOf(Purpose.class);
        allowed.addAll(granted);
        if (!Visit.signals(request).isEmpty()) {
            allowed.retainAll(Set.of(Purpose.MEASURE));
        }
        return allowed;
    }

    /**
     * The visitor's id: of the cookie, of the shop's own session, or drawn.
     *
     * @param allowed as of {@link #allowed}
     * @param withdrawn told the id of somebody whose visits are not to be linked any more
     */
    String of(
            HttpServletRequest request, HttpServletResponse response, Set<Purpose> allowed, Consumer<String> withdrawn) {
        Optional<String> held = cookie.read(request);
        if (allowed != null && allowed.contains(Purpose.LINK)) {
            return held.or(() -> own(request)).orElseGet(Ids::random);
        }
        cookie.delete(request, response);
        held.ifPresent(withdrawn);
        return own(request).orElseGet(Ids::random);
    }

    /** The service is about to hear of this page: keep on the device what may be kept. */
    void keep(HttpServletRequest request, HttpServletResponse response, String id, Set<Purpose> allowed) {
        if (allowed.contains(Purpose.LINK)) {
            cookie.set(request, response, id, allowed);
        }
    }

    /** The shop may know the visitor by now, whom it did not know before. */
    void remember(HttpServletRequest request, String id) {
        if (cookie.read(request).isEmpty()) {
            visitor.remember(request, id);
        }
    }

    private Optional<String> own(HttpServletRequest request) {
        return visitor.of(request).filter(id -> !id.isBlank());
    }
}
