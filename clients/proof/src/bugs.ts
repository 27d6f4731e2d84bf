import type { Bug } from './program.ts';

export const BUGS: Bug[] = [];
