package org.lotse.spring;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import java.time.Duration;
import java.util.List;

/** What the service answers in place of scores. */
final class Refusal extends RuntimeException {
    private static final int TIMEOUT = 408;
    private static final int TOO_MANY = 429;
    private static final int UNAUTHORISED = 401;
    private static final int FORBIDDEN = 403;

    private final int status;
    private final transient Problem problem;
    private final Duration after;

    Refusal(int status, Problem problem, Duration after) {
        super("HTTP " + status + ": " + problem.told(), null, false, false);
        this.status = status;
        this.problem = problem;
        this.after = after;
    }

    /** Whether it is worth sending again: not the events' fault. A key that is not ours yet may be tomorrow. */
    boolean passes() {
        return status == TIMEOUT || status == TOO_MANY || status >= 500 || status == UNAUTHORISED || status == FORBIDDEN;
    }

    /** How long to wait before; zero if nothing is said. */
    Duration after() {
        return after;
    }

    /** Which events of an array are at fault; empty if nothing is said. */
    List<Integer> places() {
        return problem.errors().stream().map(Fault::index).distinct().toList();
    }

    /**
     * A problem of RFC 9457; the service repeats nothing in it that may be personal.
     *
     * @param errors what is wrong with which event
     */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Problem(String detail, List<Fault> errors) {
        static final Problem UNKNOWN = new Problem("", List.of());

        Problem {
            detail = detail == null ? "" : detail;
            errors = errors == null ? List.of() : List.copyOf(errors);
        }

        String told() {
            return detail;
        }
    }

    /** One field of one event. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Fault(int index, String field, String expected) {}
}
