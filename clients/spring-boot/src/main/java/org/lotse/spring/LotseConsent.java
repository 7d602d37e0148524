package org.lotse.spring;

import jakarta.servlet.http.HttpServletRequest;
import java.util.Set;

/**
 * What the visitor of a request has consented to: the shop's bean of this type knows, from its consent manager's cookie or
 * its own session.
 *
 * <p>Without such a bean, and without an answer, it is nothing: no cookie is set, and an event counts for the running
 * session only. Global Privacy Control and Do Not Track take {@link Purpose#LINK} and {@link Purpose#PERSONALISE} away
 * from whatever is returned.
 */
@FunctionalInterface
public interface LotseConsent {
    /**
     * Asked once a request, before its controller.
     *
     * @return the purposes; empty for a refusal or where nobody was asked; null if nothing at all may be sent
     */
    Set<Purpose> of(HttpServletRequest request);
}
