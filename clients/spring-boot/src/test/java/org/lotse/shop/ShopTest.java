package org.lotse.shop;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.test.context.SpringBootTest.WebEnvironment;
import org.springframework.boot.test.web.client.TestRestTemplate;
import org.springframework.http.HttpEntity;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpMethod;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.test.context.DynamicPropertyRegistry;
import org.springframework.test.context.DynamicPropertySource;

/**
 * The shop with the running service, whose address and key tests/clients/test_spring.py gives: it starts both, and tests
 * what becomes of events, consent and outages.
 */
@SpringBootTest(webEnvironment = WebEnvironment.RANDOM_PORT)
@EnabledIfEnvironmentVariable(named = "LOTSE_TEST_URL", matches = "http.*")
class ShopTest {
    @Autowired
    private TestRestTemplate http;

    @DynamicPropertySource
    static void settings(DynamicPropertyRegistry registry) {
        registry.add("lotse.url", () -> System.getenv("LOTSE_TEST_URL"));
        registry.add("lotse.key", () -> System.getenv("LOTSE_TEST_KEY"));
        registry.add("lotse.timeout-ms", () -> 5_000); // whether it answers, not how fast
    }

    @Test
    void aPageKnowsItsScoresItsFlagsAndItsSession() {
        String page = page("/", MediaType.TEXT_HTML);
        assertThat(page).contains("\"reason\":\"ok\"", "\"banner\":false", "\"conversion\":", "\"exit\":");
        assertThat(Pattern.compile("\"session\":\"[\\w-]{40,}\"").matcher(page).find()).isTrue();
    }

    @Test
    void aServiceBehindTheControllersKnowsThem() {
        assertThat(page("/recommended", MediaType.TEXT_HTML)).contains("\"recommended\":\"something\"");
    }

    @Test
    void whatIsNoPageIsNotOne() {
        assertThat(page("/", MediaType.APPLICATION_JSON, MediaType.ALL)).contains("\"reason\":\"no_event\"", "\"scores\":{}");
        assertThat(page("/frame", MediaType.TEXT_HTML)).contains("\"reason\":\"no_event\"");
    }

    private String page(String path, MediaType... accepted) {
        HttpHeaders headers = new HttpHeaders();
        headers.setAccept(List.of(accepted));
        headers.set(HttpHeaders.USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        ResponseEntity<String> answer = http.exchange(path, HttpMethod.GET, new HttpEntity<>(headers), String.class);
        assertThat(answer.getStatusCode().value()).isEqualTo(200);
        return answer.getBody();
    }
}
