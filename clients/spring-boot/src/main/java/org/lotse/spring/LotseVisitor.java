package org.lotse.spring;

import jakarta.servlet.http.HttpServletRequest;
import java.util.Optional;

/**
 * Who the visitor of a request is while there is no consent to link visits.
 *
 * <p>Nothing may be kept on the device then, so each page is a visitor of its own unless the shop knows the visitor by
 * itself. With consent to link it is the cookie that says who somebody is.
 */
@FunctionalInterface
public interface LotseVisitor {
    /** An id that nobody can guess and that is no name, address or number of an account; empty if there is none. */
    Optional<String> of(HttpServletRequest request);

    /**
     * Told at the end of a request that was nobody's which id its events have, for a shop that has got to know the visitor
     * meanwhile.
     */
    default void remember(HttpServletRequest request, String id) {}

    /** Every page is a visitor of its own. */
    static LotseVisitor ofPage() {
        return request -> Optional.empty();
    }

    /**
     * Requests of one HTTP session are one visitor's, that by which the shop begins it among them: for shops that keep such
     * a session anyway, as for a cart. The id is drawn at random and lies in that session; none is begun for it.
     */
    static LotseVisitor ofHttpSession() {
        return new HttpSessionVisitor();
    }
}
