/** What the page lets its visitors run as plain SQL. */
export const statements = [
  `UPDATE todos SET title = upper(title) WHERE NOT done`,
  `INSERT INTO lists (title) VALUES ('Birthday')`,
  `UPDATE todos SET done = true WHERE title ILIKE '%bread%'`,
  `DELETE FROM todos WHERE done`,
];
