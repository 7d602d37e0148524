package org.lotse.shop;

import jakarta.servlet.http.Cookie;
import jakarta.servlet.http.HttpServletRequest;
import java.util.Arrays;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import org.lotse.spring.LotseConsent;
import org.lotse.spring.LotseVisitor;
import org.lotse.spring.Purpose;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.web.util.WebUtils;

/** A shop as others have it: pages, a cart in the HTTP session, and a consent manager's cookie. */
@SpringBootApplication
public class Shop {
    /** Starts it; {@code --server.port=0} takes a free port. */
    public static void main(String[] arguments) {
        SpringApplication.run(Shop.class, arguments);
    }

    /** The consent manager keeps {@code consent=measure-link-personalise}, or {@code consent=never}. */
    @Bean
    LotseConsent consent() {
        return Shop::granted;
    }

    /** Who has a cart is known by it. */
    @Bean
    LotseVisitor visitor() {
        return LotseVisitor.ofHttpSession();
    }

    private static Set<Purpose> granted(HttpServletRequest request) {
        Cookie cookie = WebUtils.getCookie(request, "consent");
        if (cookie == null || cookie.getValue().isEmpty()) {
            return Set.of();
        }
        if ("never".equals(cookie.getValue())) {
            return null;
        }
        return Arrays.stream(cookie.getValue().split("-"))
                .map(name -> Purpose.valueOf(name.toUpperCase(Locale.ROOT)))
                .collect(Collectors.toSet());
    }
}
