import fc from 'fast-check';

// The same cases in each run; SYNC_EXT_SEED chooses others.
fc.configureGlobal({ seed: Number(process.env.SYNC_EXT_SEED ?? 1) });
