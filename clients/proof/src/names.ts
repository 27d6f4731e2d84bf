/** The app's database. */
export const DATABASE = 'app';
