package org.lotse.shop;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.openfeature.sdk.Client;
import dev.openfeature.sdk.FlagEvaluationDetails;
import dev.openfeature.sdk.ImmutableContext;
import dev.openfeature.sdk.Value;
import jakarta.servlet.http.HttpSession;
import java.util.LinkedHashMap;
import java.util.Map;
import org.lotse.spring.Details;
import org.lotse.spring.Lotse;
import org.lotse.spring.LotsePage;
import org.lotse.spring.LotseSession;
import org.springframework.http.MediaType;
import org.springframework.stereotype.Service;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** What visitors open and do. A page shows what it knows of its session, for the test to read. */
@RestController
class Pages {
    private final ObjectMapper json;
    private final Client flags;
    private final Recommendations recommendations;

    Pages(ObjectMapper json, Client flags, Recommendations recommendations) {
        this.json = json;
        this.flags = flags;
        this.recommendations = recommendations;
    }

    @GetMapping(path = "/", produces = MediaType.TEXT_HTML_VALUE)
    String home(LotseSession lotse) throws JsonProcessingException {
        return page("Shoes", lotse, Map.of("banner", lotse.flag("banner", false)));
    }

    @LotsePage(value = "view_item", item = "{sku}", category = "shoes")
    @GetMapping(path = "/p/{sku}", produces = MediaType.TEXT_HTML_VALUE)
    String product(@PathVariable String sku, LotseSession lotse) throws JsonProcessingException {
        return page(sku, lotse, Map.of());
    }

    @GetMapping(path = "/recommended", produces = MediaType.TEXT_HTML_VALUE)
    String recommended(LotseSession lotse) throws JsonProcessingException {
        return page("For you", lotse, Map.of("recommended", recommendations.forVisitor()));
    }

    /** Nobody asks for anything here, so nobody waits. */
    @GetMapping(path = "/imprint", produces = MediaType.TEXT_HTML_VALUE)
    String imprint() {
        return "<!doctype html><title>Imprint</title>";
    }

    @LotsePage(LotsePage.NONE)
    @GetMapping(path = "/frame", produces = MediaType.TEXT_HTML_VALUE)
    String frame(LotseSession lotse) throws JsonProcessingException {
        return page("Frame", lotse, Map.of());
    }

    /** Flags by OpenFeature: two that came with the page, one that asks for what only the shop knows. */
    @GetMapping(path = "/flags", produces = MediaType.TEXT_HTML_VALUE)
    String flags(LotseSession lotse) throws JsonProcessingException {
        ImmutableContext german = new ImmutableContext(Map.of("country", new Value("DE")));
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("banner", flags.getBooleanValue("banner", false));
        found.put("help", flags.getStringValue("help", "nothing"));
        found.put("price", flags.getDoubleValue("price", 0.5));
        FlagEvaluationDetails<Double> price = flags.getDoubleDetails("price", 0.5, german);
        found.put("price_in_germany", price.getValue());
        found.put("problem", String.valueOf(price.getErrorMessage()));
        found.put("unknown", flags.getStringDetails("unknown", "nothing", german).getErrorCode());
        return page("Flags", lotse, found);
    }

    @PostMapping("/cart/{sku}")
    Map<String, Object> add(@PathVariable String sku, HttpSession cart, LotseSession lotse) {
        cart.setAttribute(sku, 1);
        lotse.track("add_to_cart", Details.ofItem(sku).price(79.9).quantity(2).currency("EUR"));
        return Map.of("reason", lotse.reason().word(), "banner", flags.getBooleanValue("banner", false));
    }

    @PostMapping("/orders")
    Map<String, Object> order(LotseSession lotse) {
        lotse.track("purchase", Details.ofValue(159.8).currency("EUR"));
        return Map.of();
    }

    @PostMapping("/events")
    Map<String, Object> event(@RequestParam String name, @RequestParam double value, LotseSession lotse) {
        lotse.track(name, Details.ofValue(value));
        lotse.track("search");
        return Map.of();
    }

    @GetMapping(path = "/broken", produces = MediaType.TEXT_HTML_VALUE)
    String broken() {
        throw new IllegalStateException("the shop's own");
    }

    private String page(String title, LotseSession lotse, Map<String, ?> more) throws JsonProcessingException {
        Map<String, Object> shown = new LinkedHashMap<>(more);
        shown.put("scores", lotse.scores());
        shown.put("flags", lotse.flags());
        shown.put("session", lotse.session());
        shown.put("reason", lotse.reason().word());
        shown.put("waited_ms", lotse.waitedMs());
        return "<!doctype html><title>" + title + "</title><pre id=lotse>" + json.writeValueAsString(shown) + "</pre>";
    }

    /** Somewhere behind the controllers. */
    @Service
    static class Recommendations {
        private final Lotse lotse;

        Recommendations(Lotse lotse) {
            this.lotse = lotse;
        }

        String forVisitor() {
            return lotse.session().score("exit").orElse(1) < 1 ? "something" : "everything";
        }
    }
}
