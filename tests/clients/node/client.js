// node-postgres as a client of sync_ext. Does what clients.rs asks every driver to
// do, and prints what it saw as JSON. Where: PGHOST and its like. Arguments: the
// workspace, and the file with the ops of the first push.

const { readFileSync } = require('node:fs')
const { once } = require('node:events')
const pg = require('pg')

const [workspace, ops] = process.argv.slice(2)

// json as it is sent, for who wants all digits.
const asText = {
  getTypeParser: (type, format) =>
    type === pg.types.builtins.JSON ? String : pg.types.getTypeParser(type, format),
}

async function main() {
  const client = new pg.Client()
  const listener = new pg.Client()
  await Promise.all([client.connect(), listener.connect()])
  const call = async (text, values, types) => {
    const { rows } = await client.query({ text: `SELECT ${text} AS reply`, values, types })
    return rows[0].reply
  }
  const push = (ops) => call('sync_push($1, $2::json)', [workspace, ops])
  const told = async (reply) => {
    const [notification] = await reply
    return [notification.channel, JSON.parse(notification.payload)]
  }
  await listener.query('LISTEN sync_ext')

  const seen = {}
  const hint = once(listener, 'notification', { signal: AbortSignal.timeout(30000) })
  seen.pushed = [await push(readFileSync(ops, 'utf8'))]
  seen.told = await told(hint)
  const stamp = { deviceId: 'node', opId: '00000000-0000-4000-8000-000000000002', hlc: 'ä', clock: 1 }
  const op = { tableName: 'notes', operation: 'put', pk: 'ä', payload: { text: '"ä" \\ 🐘' }, stamp }
  seen.pushed.push(await push(JSON.stringify([op])))
  seen.replayed = await push(JSON.stringify([op]))

  const pull = 'sync_pull($1, $2, $3, $4, $5, $6)'
  const nulls = [workspace, 0, null, null, null, null]
  seen.text = await call(pull, nulls, asText)
  seen.pulled = await call(pull, nulls)
  for (const change of seen.pulled.changes) delete change.payload
  seen.counts = []
  for (const tables of [['notes', 'files'], ['files'], [], null]) {
    const reply = await call(pull, [workspace, 0, 10, tables, false, seen.pulled.proof])
    seen.counts.push(reply.changes.length)
  }
  seen.acknowledged = await call('sync_update_cursor($1, $2, $3)', [workspace, 'node', seen.pulled.nextCursor])
  try {
    await call('sync_pull($1, $2)', [workspace, -1])
  } catch ({ code, message, detail, hint }) {
    seen.error = { code, message, detail, hint }
  }
  await Promise.all([client.end(), listener.end()])
  console.log(JSON.stringify(seen))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
