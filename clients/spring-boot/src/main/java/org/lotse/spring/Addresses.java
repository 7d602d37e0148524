package org.lotse.spring;

import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * What the service is told of addresses: of the page's the path and the campaign's tags, of click ids only that there is
 * one; of the referrer's its host. The channel is worked out by the service from both.
 */
final class Addresses {
    private static final int LONGEST = 4_096;
    private static final Pattern TAG = Pattern.compile(
            "(?:^|&)((?:utm|mtm|pk)_(?:source|medium|campaign)=[^&]*|(?:[gw]braid|(?:g|d|y|tt)clid|msclkid)=[^&])");
    private static final Pattern ORIGIN = Pattern.compile("^[^/]*//[^/?#]*");
    private static final Pattern PARAMETERS = Pattern.compile(";[^/]*");

    private Addresses() {}

    /**
     * The page, such as {@code https://shop.example/shoes?utm_source=crm}.
     *
     * @param address without the query; a container's {@code ;jsessionid=} may stand in it and is left out
     * @param query as it came, may be null
     */
    static String page(String address, String query) {
        String page = PARAMETERS.matcher(address).replaceAll("");
        String tags = query == null
                ? ""
                : TAG.matcher(query).results().map(found -> found.group(1)).collect(Collectors.joining("&"));
        return cut(tags.isEmpty() ? page : page + "?" + tags);
    }

    /** Scheme and host of the page before; empty for none, or for none that is an address. */
    static String referrer(String header) {
        if (header == null) {
            return "";
        }
        Matcher origin = ORIGIN.matcher(header);
        // user:password@ is no part of a host
        return origin.find() ? cut(origin.group().replaceFirst("//[^@]*@", "//")) : "";
    }

    private static String cut(String text) {
        return text.substring(0, Math.min(text.length(), LONGEST));
    }
}
