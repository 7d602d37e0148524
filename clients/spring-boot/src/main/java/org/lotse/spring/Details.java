package org.lotse.spring;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What an event may tell beside its name, as the service's API has it. Money is in {@code currency}, without it in the
 * shop's own. Each call returns a new object.
 *
 * <pre>{@code lotse.track("add_to_cart", Details.ofItem("SKU-1").price(79.9).quantity(2));}</pre>
 */
public final class Details {
    private static final Details NONE = new Details(Map.of());
    private final Map<String, Object> fields;

    private Details(Map<String, Object> fields) {
        this.fields = fields;
    }

    public static Details none() {
        return NONE;
    }

    public static Details ofItem(String item) {
        return NONE.item(item);
    }

    public static Details ofValue(double value) {
        return NONE.value(value);
    }

    public Details item(String item) {
        return with("item", item);
    }

    public Details category(String category) {
        return with("category", category);
    }

    public Details campaign(String campaign) {
        return with("campaign", campaign);
    }

    /** Of one unit. */
    public Details price(double price) {
        return with("price", price);
    }

    public Details quantity(double quantity) {
        return with("quantity", quantity);
    }

    /** Of all of it: an order's, or what the shop thinks the event is worth. */
    public Details value(double value) {
        return with("value", value);
    }

    public Details currency(String currency) {
        return with("currency", currency);
    }

    /** False for what happens without the visitor doing anything. */
    public Details interactive(boolean interactive) {
        return with("interactive", interactive);
    }

    /** What the visitor has said, as {@code configs/shop.toml} numbers it; four at most. */
    public Details declared(double... preferences) {
        return with("declared", preferences.clone());
    }

    Map<String, Object> fields() {
        return fields;
    }

    private Details with(String name, Object value) {
        Map<String, Object> more = new LinkedHashMap<>(fields);
        if (value == null) {
            more.remove(name);
        } else {
            more.put(name, value);
        }
        return new Details(more);
    }
}
