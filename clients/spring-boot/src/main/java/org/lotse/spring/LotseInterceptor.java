package org.lotse.spring;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.springframework.core.annotation.AnnotatedElementUtils;
import org.springframework.web.method.HandlerMethod;
import org.springframework.web.servlet.HandlerInterceptor;
import org.springframework.web.servlet.HandlerMapping;

/** Has a page's event sent before its controller begins, under the name that its {@link LotsePage} says. */
final class LotseInterceptor implements HandlerInterceptor {
    private static final Pattern VARIABLE = Pattern.compile("\\{([^{}]+)}");

    @Override
    public boolean preHandle(HttpServletRequest request, HttpServletResponse response, Object handler) {
        if (request.getDispatcherType() == DispatcherType.REQUEST
                && handler instanceof HandlerMethod method
                && request.getAttribute(LotseSession.ATTRIBUTE) instanceof LotseSession session) {
            begin(session, page(method), request);
        }
        return true;
    }

    private static void begin(LotseSession session, LotsePage page, HttpServletRequest request) {
        if (page == null) {
            session.begin("page_view", Details.none());
        } else if (page.value().equals(LotsePage.NONE)) {
            session.skip();
        } else {
            String item = filled(page.item(), request);
            String category = filled(page.category(), request);
            Details details = Details.none();
            details = item.isEmpty() ? details : details.item(item);
            details = category.isEmpty() ? details : details.category(category);
            session.begin(page.value(), details);
        }
    }

    private static LotsePage page(HandlerMethod method) {
        LotsePage own = method.getMethodAnnotation(LotsePage.class);
        return own != null ? own : AnnotatedElementUtils.findMergedAnnotation(method.getBeanType(), LotsePage.class);
    }

    private static String filled(String template, HttpServletRequest request) {
        Object variables = request.getAttribute(HandlerMapping.URI_TEMPLATE_VARIABLES_ATTRIBUTE);
        if (!(variables instanceof Map<?, ?> known)) {
            return template;
        }
        return VARIABLE.matcher(template).replaceAll(found -> {
            Object value = known.get(found.group(1));
            return value == null ? "" : Matcher.quoteReplacement(value.toString());
        });
    }
}
