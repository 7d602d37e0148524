package org.lotse.spring;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.List;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.server.PathContainer;
import org.springframework.web.filter.OncePerRequestFilter;
import org.springframework.web.util.pattern.PathPattern;
import org.springframework.web.util.pattern.PathPatternParser;

/** Gives every request its {@link LotseSession}, and has the event of a page sent that no controller has made. */
final class LotseFilter extends OncePerRequestFilter {
    private static final Logger LOG = LoggerFactory.getLogger(LotseFilter.class);
    private final LotseProperties properties;
    private final Sender sender;
    private final Visitors visitors;
    private final List<PathPattern> skip;
    private final Told told = new Told(LOG);

    LotseFilter(LotseProperties properties, Sender sender, Visitors visitors) {
        this.properties = properties;
        this.sender = sender;
        this.visitors = visitors;
        this.skip = properties.skip().stream().map(new PathPatternParser()::parse).toList();
    }

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws ServletException, IOException {
        LotseSession session = session(request, response);
        request.setAttribute(LotseSession.ATTRIBUTE, session);
        chain.doFilter(request, response);
        session.ends();
        // a file, a servlet of another framework: a page if it was one
        String type = response.getContentType();
        if (response.getStatus() == HttpServletResponse.SC_OK && type != null && type.startsWith("text/html")) {
            session.begin("page_view", Details.none());
        }
    }

    /** A consent or visitor bean of the shop that fails is no reason for a page to fail. */
    private LotseSession session(HttpServletRequest request, HttpServletResponse response) {
        if (!properties.enabled()) {
            return LotseSession.without(Reason.OFF);
        }
        try {
            String device = Agents.device(request.getHeader("User-Agent"));
            if (Agents.BOT.equals(device) || Visit.isInAdvance(request) || isSkipped(request)) {
                return LotseSession.without(Reason.SKIPPED);
            }
            Set<Purpose> allowed = visitors.allowed(request);
            String visitor = visitors.of(request, response, allowed, sender::withdraw);
            if (allowed == null) {
                return LotseSession.without(Reason.NO_CONSENT);
            }
            LotseSession.Builder builder = new LotseSession.Builder()
                    .ends(quietly(() -> visitors.remember(request, visitor)))
                    .sender(sender, properties.timeoutMs())
                    .visitor(visitor, allowed, device, Visit.signals(request));
            if (Visit.isPage(request)) {
                String address = Addresses.page(request.getRequestURL().toString(), request.getQueryString());
                builder.page(address, Addresses.referrer(request.getHeader("Referer")))
                        .begins(quietly(() -> visitors.keep(request, response, visitor, allowed)));
            }
            return builder.build();
        } catch (RuntimeException error) {
            told.warn("a request is not measured: {}", error.getClass().getName());
            return LotseSession.without(Reason.SKIPPED);
        }
    }

    private Runnable quietly(Runnable action) {
        return () -> {
            try {
                action.run();
            } catch (RuntimeException error) {
                told.warn("a visitor is not known again: {}", error.getClass().getName());
            }
        };
    }

    private boolean isSkipped(HttpServletRequest request) {
        PathContainer path = PathContainer.parsePath(request.getRequestURI().substring(request.getContextPath().length()));
        return skip.stream().anyMatch(pattern -> pattern.matches(path));
    }
}
