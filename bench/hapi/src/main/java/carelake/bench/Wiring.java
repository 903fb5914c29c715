package carelake.bench;

import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirPostgresDialect;
import ca.uhn.fhir.jpa.model.entity.StorageSettings;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import com.zaxxer.hikari.HikariDataSource;
import jakarta.persistence.EntityManagerFactory;
import java.util.Properties;
import javax.sql.DataSource;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/** What HAPI needs to be told: its database, and the settings that its documentation advises for loading fast. */
@Configuration
@Import({
  JpaR4Config.class,
  HapiJpaConfig.class,
  ThreadPoolFactoryConfig.class,
  JpaBatch2Config.class,
  Batch2JobsConfig.class,
  SubscriptionChannelConfig.class
})
public class Wiring {

  /** Everything off that costs time when loading and that the bench does not use; README.md lists each. */
  @Bean
  public JpaStorageSettings storageSettings() {
    JpaStorageSettings settings = new JpaStorageSettings();
    settings.setMassIngestionMode(true);
    settings.setEnforceReferentialIntegrityOnWrite(false);
    settings.setEnforceReferentialIntegrityOnDelete(false);
    settings.setDeleteEnabled(false);
    settings.setMatchUrlCacheEnabled(true);
    settings.setTagStorageMode(StorageSettings.TagStorageModeEnum.INLINE);
    settings.setIndexMissingFields(StorageSettings.IndexEnabledEnum.DISABLED);
    settings.setIndexStorageOptimized(true);
    settings.setSuppressStringIndexingInTokens(true);
    settings.setHibernateSearchIndexFullText(false);
    settings.setHibernateSearchIndexSearchParams(false);
    settings.setStoreMetaSourceInformation(JpaStorageSettings.StoreMetaSourceInformationEnum.NONE);
    settings.setSchedulingDisabled(true);
    // A search is answered anew each time: the bench asks for many of them twice.
    settings.setReuseCachedSearchResultsForMillis(null);
    return settings;
  }

  @Bean
  public PartitionSettings partitionSettings() {
    return new PartitionSettings();
  }

  @Bean
  public SubscriptionSettings subscriptionSettings() {
    return new SubscriptionSettings();
  }

  @Bean(destroyMethod = "close")
  public DataSource dataSource() {
    HikariDataSource source = new HikariDataSource();
    source.setJdbcUrl(System.getProperty("bench.url"));
    source.setUsername(System.getProperty("bench.user"));
    source.setPassword(System.getenv("BENCH_PASSWORD"));
    source.setMaximumPoolSize(20);
    // One round trip for a batch of inserts, where the driver would make many.
    source.addDataSourceProperty("reWriteBatchedInserts", "true");
    return source;
  }

  @Primary
  @Bean
  public LocalContainerEntityManagerFactoryBean entityManagerFactory(
      DataSource source, ConfigurableListableBeanFactory beans, FhirContext fhir, JpaStorageSettings settings) {
    LocalContainerEntityManagerFactoryBean made =
        HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, settings);
    made.setPersistenceUnitName("HAPI_PU");
    made.setDataSource(source);
    Properties hibernate = new Properties();
    hibernate.put("hibernate.dialect", HapiFhirPostgresDialect.class.getName());
    hibernate.put("hibernate.hbm2ddl.auto", "update");
    hibernate.put("hibernate.jdbc.batch_size", "200");
    hibernate.put("hibernate.order_inserts", "true");
    hibernate.put("hibernate.order_updates", "true");
    hibernate.put("hibernate.cache.use_query_cache", "false");
    hibernate.put("hibernate.cache.use_second_level_cache", "false");
    hibernate.put("hibernate.search.enabled", "false");
    made.setJpaProperties(hibernate);
    return made;
  }

  @Primary
  @Bean
  public JpaTransactionManager transactionManager(EntityManagerFactory factory) {
    return new JpaTransactionManager(factory);
  }
}
