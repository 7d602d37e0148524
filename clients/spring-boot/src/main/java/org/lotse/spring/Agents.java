package org.lotse.spring;

import java.util.regex.Pattern;

/**
 * The kind of device that a user agent names, by the rules of features/agents.py as far as browsers and programs that say
 * what they are need them. The text is looked at here and goes nowhere.
 */
final class Agents {
    static final String BOT = "bot";
    private static final int LONGEST = 1_000;
    private static final Pattern PROGRAM = pattern(
            "(?<!cu)bot(?![a-z])|crawl|spider|slurp|fetch|monitor|scanner|preview|headless|phantomjs|lighthouse|archiver|feed"
                    + "|rss\\b|scrap(y|er)|validator|healthcheck|kube-probe|prometheus|uptime|facebookexternalhit|embedly|nutch"
                    + "|url ?resolver|link ?check|site ?explorer|mediapartners|inspectiontool|indexer|harvest"
                    + "|https?://(?!bsalsa\\.com)|[\\w.-]@[\\w-]+\\.\\w");
    private static final Pattern LIBRARY = pattern(
            "^(curl|wget|python|aiohttp|httpx|java/|go-http|okhttp|libwww|lwp|php|guzzle|ruby|faraday|perl|axios|node"
                    + "|undici|apache-httpclient|http_request|postmanruntime|powershell|winhttp|restsharp|dart/|reqwest"
                    + "|whatsapp/|microsoft office|check_http|zgrab|masscan|nmap)");
    private static final Pattern TV = pattern(
            "smart-?tv|apple ?tv|hbbtv|(android|google) ?tv|roku|bravia|netcast|web0s|viera|\\bce-html|\\baft[a-z]\\w*\\b|crkey"
                    + "|playstation|xbox");
    private static final Pattern TABLET = pattern("tablet(?! pc)|ipad|kindle|\\bsilk/|playbook|^mozilla/.*android(?!.*mobile)");
    private static final Pattern MOBILE = pattern(
            "mobile|android|midp|opera mini|opera mobi|symbian|blackberry|\\bbb10|windows phone|windows ce|kaios");
    private static final Pattern DESKTOP = pattern("windows|macintosh|mac os|x11|linux|cros");

    private Agents() {}

    /** A name of the service's devices. */
    static String device(String agent) {
        if (agent == null || agent.isBlank()) {
            return "unknown";
        }
        String text = agent.strip();
        text = text.substring(0, Math.min(text.length(), LONGEST));
        if (PROGRAM.matcher(text).find() || LIBRARY.matcher(text).find()) {
            return BOT;
        }
        if (TV.matcher(text).find()) {
            return "tv";
        }
        if (TABLET.matcher(text).find()) {
            return "tablet";
        }
        if (MOBILE.matcher(text).find()) {
            return "mobile";
        }
        return DESKTOP.matcher(text).find() ? "desktop" : "unknown";
    }

    private static Pattern pattern(String text) {
        return Pattern.compile(text, Pattern.CASE_INSENSITIVE);
    }
}
