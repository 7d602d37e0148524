/**
 * Lotse in a Spring Boot shop: every page that is served is an event, and its session's scores and flags are at hand in
 * controllers and views. The shop never waits longer than {@code lotse.timeout-ms} for it, whatever the service does.
 */
package org.lotse.spring;
