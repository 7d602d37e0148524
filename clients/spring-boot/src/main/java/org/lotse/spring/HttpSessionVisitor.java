package org.lotse.spring;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpSession;
import java.util.Optional;

/** The visitor's id as an attribute of the shop's own HTTP session, where there is one. */
final class HttpSessionVisitor implements LotseVisitor {
    private static final String NAME = LotseVisitor.class.getName();

    @Override
    public Optional<String> of(HttpServletRequest request) {
        return Optional.ofNullable(request.getSession(false)).map(session -> {
            if (session.getAttribute(NAME) == null) {
                session.setAttribute(NAME, Ids.random());
            }
            return (String) session.getAttribute(NAME);
        });
    }

    @Override
    public void remember(HttpServletRequest request, String id) {
        HttpSession session = request.getSession(false);
        if (session != null && session.getAttribute(NAME) == null) {
            session.setAttribute(NAME, id);
        }
    }
}
