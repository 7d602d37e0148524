package org.lotse.spring;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** A flag's value is what the shop's code expects, or the shop's own default. */
class FlagTest {
    @Test
    void aValueOfTheDefaultsKindIsTaken() {
        assertThat(flag(true).or(false)).isTrue();
        assertThat(flag("chat").or("none")).isEqualTo("chat");
        assertThat(flag(2).or(1.5)).isEqualTo(2.0);
        assertThat(flag(2).or(1L)).isEqualTo(2L);
        assertThat(flag(Map.of("a", 1)).or(new java.util.TreeMap<String, Integer>())).isEqualTo(Map.of("a", 1));
        assertThat(flag(List.of(1)).or(List.<Integer>of())).containsExactly(1);
        assertThat(flag("chat").<String>or(null)).isEqualTo("chat");
    }

    @Test
    void anythingElseIsNot() {
        assertThat(flag("chat").or(false)).isFalse();
        assertThat(flag(1.5).or(1)).isEqualTo(1);
        assertThat(flag(null).or("none")).isEqualTo("none");
    }

    private static Flag flag(Object value) {
        return new Flag(value, null, null);
    }
}
