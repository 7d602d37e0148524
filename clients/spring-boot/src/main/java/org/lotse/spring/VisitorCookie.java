package org.lotse.spring;

import jakarta.servlet.http.Cookie;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import org.springframework.http.HttpHeaders;
import org.springframework.http.ResponseCookie;
import org.springframework.web.util.WebUtils;

/**
 * The first-party cookie of visitors who have consented to link their visits. Its text is the browser client's: 128 random
 * bits, and what they may be used for, {@code 3f2a....measure.link}.
 *
 * <p>It is set when the consent is given or another one, for as long as the service keeps linked visitors: a visit does
 * not prolong what was consented to.
 */
final class VisitorCookie {
    private static final Duration KEPT = Duration.ofDays(390);
    private final String name;

    VisitorCookie(String name) {
        this.name = name;
    }

    /** The visitor's id; empty without the cookie, and for what could not be an id. */
    Optional<String> read(HttpServletRequest request) {
        return text(request).map(text -> text.split("\\.", 2)[0]).filter(Ids::isOpaque);
    }

    /** Keep an id; one that the shop has made by itself stays in the shop, unless it is as opaque as ours. */
    void set(HttpServletRequest request, HttpServletResponse response, String id, Set<Purpose> consent) {
        String text = id + "." + consent.stream().map(Purpose::word).collect(Collectors.joining("."));
        if (Ids.isOpaque(id) && !text(request).equals(Optional.of(text))) {
            add(request, response, text, KEPT);
        }
    }

    /** Forget it, if there is one. */
    void delete(HttpServletRequest request, HttpServletResponse response) {
        if (text(request).isPresent()) {
            add(request, response, "", Duration.ZERO);
        }
    }

    private Optional<String> text(HttpServletRequest request) {
        Cookie found = WebUtils.getCookie(request, name);
        return Optional.ofNullable(found).map(Cookie::getValue);
    }

    private void add(HttpServletRequest request, HttpServletResponse response, String value, Duration age) {
        ResponseCookie cookie = ResponseCookie.from(name, value)
                .path("/")
                .maxAge(age)
                .httpOnly(true)
                .sameSite("Lax")
                .secure(request.isSecure())
                .build();
        response.addHeader(HttpHeaders.SET_COOKIE, cookie.toString());
    }
}
