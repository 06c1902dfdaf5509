import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The page is embedded in weft: names stay the same from build to build, and
// nothing is inlined, because the page's policy allows no inline script or style.
export default defineConfig({
  plugins: [react()],
  server: { port: 5173, proxy: { '/api': { target: 'http://localhost:8090', headers: { 'sec-fetch-site': 'same-origin' } } } },
  build: {
    outDir: '../observe/console/dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    target: 'es2022',
    license: { fileName: 'licenses.md' },
    rolldownOptions: {
      output: {
        entryFileNames: 'assets/console.js',
        chunkFileNames: 'assets/[name].js',
        assetFileNames: 'assets/[name][extname]',
      },
    },
  },
});
