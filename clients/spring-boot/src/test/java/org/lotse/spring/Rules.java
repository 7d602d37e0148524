package org.lotse.spring;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.io.IOException;
import java.util.Map;

/** What this client decides by itself, for cases that come in, so that a test compares it with the service. */
final class Rules {
    private Rules() {}

    /** In: {@code {"agents": [...], "visits": [[address, query, referrer], ...]}}; out: devices, and what is sent. */
    public static void main(String[] arguments) throws IOException {
        ObjectMapper json = new ObjectMapper();
        JsonNode cases = json.readTree(System.in);
        ArrayNode devices = json.createArrayNode();
        cases.get("agents").forEach(agent -> devices.add(Agents.device(agent.asText())));
        ArrayNode sent = json.createArrayNode();
        cases.get("visits").forEach(visit -> sent.addArray()
                .add(Addresses.page(visit.get(0).asText(), visit.get(1).asText()))
                .add(Addresses.referrer(visit.get(2).asText())));
        json.writeValue(System.out, Map.of("devices", devices, "sent", sent));
    }
}
