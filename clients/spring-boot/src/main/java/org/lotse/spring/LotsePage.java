package org.lotse.spring;

import java.lang.annotation.Documented;
import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/**
 * What opening a page is called, on the method of a controller or on a controller for all of its methods; without it,
 * {@code page_view}.
 *
 * <pre>{@code
 * @LotsePage(value = "view_item", item = "{sku}")
 * @GetMapping("/p/{sku}")
 * String product(@PathVariable String sku) { ... }
 * }</pre>
 */
@Documented
@Target({ElementType.METHOD, ElementType.TYPE})
@Retention(RetentionPolicy.RUNTIME)
public @interface LotsePage {
    /** As the value: opening this page is no event. */
    String NONE = "";

    /** One of the vocabulary, or one that {@code configs/shop.toml} maps; {@link #NONE} for no event. */
    String value() default "page_view";

    /** The product; a variable of the path stands in braces. */
    String item() default "";

    /** The category; a variable of the path stands in braces. */
    String category() default "";
}
