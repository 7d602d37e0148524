package org.lotse.spring;

import org.springframework.web.context.request.RequestAttributes;
import org.springframework.web.context.request.RequestContextHolder;

/** The bean for whom no controller's parameter is at hand: the session of the request that the thread works for. */
public final class Lotse {
    private static final LotseSession NOBODY = LotseSession.without(Reason.SKIPPED);

    Lotse() {}

    /** The request's session; outside of a request one without scores, which takes no events. */
    public LotseSession session() {
        return ofThread();
    }

    static LotseSession ofThread() {
        RequestAttributes request = RequestContextHolder.getRequestAttributes();
        Object found = request == null
                ? null
                : request.getAttribute(LotseSession.ATTRIBUTE, RequestAttributes.SCOPE_REQUEST);
        return found instanceof LotseSession session ? session : NOBODY;
    }
}
