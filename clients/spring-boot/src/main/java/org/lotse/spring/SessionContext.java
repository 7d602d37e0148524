package org.lotse.spring;

import dev.openfeature.sdk.EvaluationContext;
import dev.openfeature.sdk.ImmutableContext;
import dev.openfeature.sdk.ThreadLocalTransactionContextPropagator;

/**
 * OpenFeature's context of a request: its targeting key is the session of the visitor, beside what the shop has set itself
 * with {@code setTransactionContext}.
 */
final class SessionContext extends ThreadLocalTransactionContextPropagator {
    @Override
    public EvaluationContext getTransactionContext() {
        EvaluationContext own = super.getTransactionContext();
        String target = Lotse.ofThread().target();
        if (target.isEmpty()) {
            return own;
        }
        EvaluationContext ours = new ImmutableContext(target);
        return own == null ? ours : ours.merge(own);
    }
}
