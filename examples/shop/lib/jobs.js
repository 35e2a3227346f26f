/**
 * The queue. A claim is committed before the work begins, so only who owns the row's tenant claims
 * it; the effect and `done` are one transaction, so it happens once however often a worker dies.
 *
 * `attempts` is the claim's number: a worker that was thought dead settles nothing any more.
 */
const claimSeconds = 30;
const claimsMax = 20;
const attemptsMax = 8;
const listMax = 100;

/** Also takes over claims that ran out. Two workers never get the same job. */
export async function claimJobs(client) {
  const { rows } = await client.query(
    `update jobs set state = 'claimed', attempts = attempts + 1,
            next_at = now() + make_interval(secs => $2)
     where id in (select id from jobs where state in ('pending', 'claimed') and next_at <= now()
                  order by next_at limit $1 for update skip locked)
     returning id, account_id, kind, order_id, attempts`,
    [claimsMax, claimSeconds],
  );
  return rows;
}

/** The effect, and that it is done. Throws, and so undoes both, when the claim is not ours any more. */
export async function finishJob(client, { id, account_id, order_id, attempts }) {
  const done = await client.query(
    `update jobs set state = 'done', last_error = null
     where account_id = $1 and id = $2 and state = 'claimed' and attempts = $3`,
    [account_id, id, attempts],
  );
  // Also when the tenant has left this database: rows that are not here are 0 rows, not an error.
  if (done.rowCount !== 1) throw new Error(`job ${id} is not ours any more`);
  const confirmed = await client.query(
    `update orders set status = 'confirmed', confirmed = confirmed + 1
     where account_id = $1 and id = $2`,
    [account_id, order_id],
  );
  if (confirmed.rowCount !== 1) throw new Error(`order ${order_id} does not exist`);
}

export async function failJob(client, { id, account_id, attempts }, reason) {
  await client.query(
    `update jobs set state = case when attempts >= $4 then 'dead' else 'pending' end,
            last_error = left($5, 500), next_at = now() + make_interval(secs => least(60, attempts))
     where account_id = $1 and id = $2 and state = 'claimed' and attempts = $3`,
    [account_id, id, attempts, attemptsMax, reason],
  );
}

/** What is unfinished or dead, oldest first, and how many of each state. */
export async function readOutbox(database, tenant) {
  const counted = await database.query(
    "select state, count(*) from jobs where account_id = $1 group by state",
    [tenant],
  );
  const counts = { pending: 0, claimed: 0, done: 0, dead: 0 };
  for (const { state, count } of counted.rows) counts[state] = Number(count);
  const { rows } = await database.query(
    `select id, order_id, kind, state, attempts, next_at, last_error, created_at from jobs
     where account_id = $1 and state <> 'done' order by id limit $2`,
    [tenant, listMax],
  );
  const items = rows.map((row) => ({
    ...row,
    id: Number(row.id),
    order_id: row.order_id === null ? null : Number(row.order_id),
  }));
  return { counts, items };
}
