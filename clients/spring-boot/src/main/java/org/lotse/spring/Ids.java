package org.lotse.spring;

import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.regex.Pattern;

/** Ids of visitors and events: 128 random bits, which tell nothing and which nobody can guess. */
final class Ids {
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final Pattern OPAQUE = Pattern.compile("[A-Za-z0-9_-]{16,64}");

    private Ids() {}

    static String random() {
        byte[] bits = new byte[16];
        RANDOM.nextBytes(bits);
        return HexFormat.of().formatHex(bits);
    }

    /** Whether a text could be such an id, of ours or of the browser client. */
    static boolean isOpaque(String text) {
        return OPAQUE.matcher(text).matches();
    }
}
