package org.lotse.spring;

import dev.openfeature.sdk.FeatureProvider;
import dev.openfeature.sdk.NoOpProvider;
import dev.openfeature.sdk.NoOpTransactionContextPropagator;
import dev.openfeature.sdk.OpenFeatureAPI;

/** OpenFeature, set to the service while the shop runs. */
final class Flags implements AutoCloseable {
    private final FeatureProvider provider;

    Flags(LotseProperties properties, Sender sender) {
        provider = properties.enabled() && properties.openFeature()
                ? new LotseProvider(properties, sender.breaker())
                : null;
        if (provider != null) {
            OpenFeatureAPI api = OpenFeatureAPI.getInstance();
            api.setProviderAndWait(provider);
            api.setTransactionContextPropagator(new SessionContext());
        }
    }

    @Override
    public void close() {
        OpenFeatureAPI api = OpenFeatureAPI.getInstance();
        // another context of the same process may have set its own
        if (provider != null && api.getProvider() == provider) {
            api.setTransactionContextPropagator(new NoOpTransactionContextPropagator());
            api.setProvider(new NoOpProvider());
        }
    }
}
