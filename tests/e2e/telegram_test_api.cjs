// Starts npm's telegram-test-api: `node telegram_test_api.cjs <folder of the package> <port>`.
//
// It speaks as it was written, except where it leaves out what Telegram itself does and a bot cannot do without.
'use strict'

const path = require('node:path')

const [folder, port] = process.argv.slice(2)
const part = (name) => require(path.join(folder, 'lib', name))

// Telegram says 404 of a method that it does not have. A 500, as here, says that it broke: a bot tries again for ever.
part('routes/bot/unknownMethod').unknownMethod = (app) =>
  app.all('/bot:token/:method', (_request, response) =>
    response.status(404).json({ ok: false, error_code: 404, description: 'Not Found: method not found' }))

// Telegram lets getUpdates wait as long as it is asked to. Answered at once, a bot asks some hundred times a second.
const { getUpdates } = part('routes/bot/getUpdates')
part('routes/bot/getUpdates').getUpdates = (app, server) => {
  app.all('/bot:token/getUpdates', async (request, _response, next) => {
    const wanted = (update) => update.botToken === request.params.token && !update.isRead
    if (!server.storage.userMessages.some(wanted)) {
      const seconds = Number(request.body.timeout) || 0
      await Promise.race([server.waitUserMessage(), new Promise((done) => setTimeout(done, seconds * 1000))])
    }
    next()
  })
  getUpdates(app, server)
}

const TelegramServer = part('index')
const server = new TelegramServer({ host: '127.0.0.1', port: Number(port), storeTimeout: 3600 })

// Telegram proves with each update that it comes from there, by the secret that setWebhook gave.
require(require.resolve('axios', { paths: [folder] })).interceptors.request.use((request) => {
  const webhook = Object.values(server.webhooks).find(({ url }) => url === request.url)
  if (webhook?.secret_token) request.headers['X-Telegram-Bot-Api-Secret-Token'] = webhook.secret_token
  return request
})

server.start()
