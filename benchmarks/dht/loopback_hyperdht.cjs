// The network of hyperdht for the loopback figures: the same commands as loopback_worker.py.
'use strict'

const fs = require('fs')
const readline = require('readline')

let DHT
try {
  DHT = require('hyperdht')
} catch (error) {
  console.log(JSON.stringify({ missing: error.message.split('\n')[0] }))
  process.exit(0)
}

const HOST = '127.0.0.1'
const SEEDS = 4
const JOIN_AT_ONCE = 10
const VALUE_BYTES = 400
const nodes = []
const keys = new Map()

async function join () {
  const bootstrap = nodes.slice(0, SEEDS).map((node) => ({ host: HOST, port: node.address().port }))
  const node = new DHT({ ephemeral: false, firewalled: false, bootstrap, host: HOST, port: 0 })
  await node.fullyBootstrapped()
  nodes.push(node)
}

async function boot (count) {
  for (let i = 0; i < Math.min(SEEDS, count); i++) await join()
  for (let begin = SEEDS; begin < count; begin += JOIN_AT_ONCE) {
    await Promise.all(Array.from({ length: Math.min(JOIN_AT_ONCE, count - begin) }, join))
  }
}

const seconds = (began) => Number(process.hrtime.bigint() - began) / 1e9

async function publish (first, count) {
  const done = []
  let succeeded = 0
  for (let number = first; number < first + count; number++) {
    const pair = DHT.keyPair()
    keys.set(number, pair.publicKey)
    const began = process.hrtime.bigint()
    const put = await nodes[number % nodes.length].mutablePut(pair, Buffer.alloc(VALUE_BYTES, number))
    done.push(seconds(began))
    if (put.closestNodes.length > 0) succeeded++
  }
  return { done, succeeded, asked: count }
}

async function get (number, step, latest) {
  const began = process.hrtime.bigint()
  const got = await nodes[(number + step) % nodes.length].mutableGet(keys.get(number), { latest })
  return got === null ? null : seconds(began)
}

async function resolve (first, count) {
  const answer = { first: [], newest: [], succeeded: 0, asked: count }
  for (let number = first; number < first + count; number++) {
    answer.first.push(await get(number, 61, false))
    answer.newest.push(await get(number, 31, true))
    if (answer.newest.at(-1) !== null) answer.succeeded++
  }
  return answer
}

function datagrams () {
  const [names, values] = fs.readFileSync('/proc/net/snmp', 'ascii').split('\n')
    .filter((line) => line.startsWith('Udp:')).map((line) => line.split(' '))
  return Number(values[names.indexOf('InDatagrams')])
}

async function obey (request) {
  const began = process.hrtime.bigint()
  const cpu = process.cpuUsage()
  const before = datagrams()
  const rss = process.memoryUsage().rss
  let answer = {}
  switch (request.command) {
    case 'boot':
      await boot(request.nodes)
      answer = { rss_kib: (process.memoryUsage().rss - rss) / 1024 }
      break
    case 'idle':
      await new Promise((resolve) => setTimeout(resolve, 1000 * request.seconds))
      break
    case 'publish':
      answer = await publish(request.first, request.count)
      break
    case 'resolve':
      answer = await resolve(request.first, request.count)
  }
  const used = process.cpuUsage(cpu)
  return {
    ...answer,
    wall_s: seconds(began),
    cpu_s: (used.user + used.system) / 1e6,
    datagrams: datagrams() - before
  }
}

async function main () {
  console.log(JSON.stringify({ version: require('hyperdht/package.json').version }))
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await obey(JSON.parse(line))))
  }
  process.exit(0)
}

main()
